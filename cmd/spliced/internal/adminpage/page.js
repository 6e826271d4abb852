// The page of the admin API. It watches /v1/watch, keeps the last five minutes, and
// shows them. Whatever it shows may have been written by an attacker (the name in a
// TLS handshake, an error of a server): text becomes text nodes and attributes, by
// show and set below, and never markup.

const SPAN = 300; // lines that are kept, one a second
const BUSIEST = 250; // sessions that are watched
const FILTERED = 1000; // sessions that a filter may find: the most that the API gives
const FEW = 50; // rows of a long table, until more are asked for
const STALLED = 10_000; // ms without a line after which the daemon counts as away
const ENGINES = { wire: "c-orange", splice: "c-blue", sockmap: "c-violet", copy: "c-grey" };

const $ = (id) => document.getElementById(id);

// ---- Words

const grouped = new Intl.NumberFormat("en-US");

function count(n) {
  return grouped.format(Math.round(n));
}

// scaled has three digits and a unit: 12.3 MB.
function scaled(n, unit = "B") {
  const prefixes = ["", "k", "M", "G", "T", "P", "E"];
  let i = 0;
  while (Math.abs(n) >= 999.5 && i < prefixes.length - 1) {
    n /= 1000;
    i++;
  }
  const digits = i === 0 && Number.isInteger(n) || n >= 99.95 ? 0 : n >= 9.995 ? 1 : 2;
  return `${n.toFixed(digits)} ${prefixes[i]}${unit}`;
}

function speed(n) {
  return Number.isFinite(n) ? scaled(n === 0 ? 0 : n, "B/s") : "–";
}

function amount(n) {
  return Number.isFinite(n) ? count(n) : "–";
}

function often(n) {
  if (!Number.isFinite(n)) return "–";
  return n > 0 && n < 10 ? n.toFixed(1) : count(n);
}

function lasting(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d) return `${d}d ${h}h`;
  if (h) return `${h}h ${m}m`;
  return m ? `${m}m ${String(s % 60).padStart(2, "0")}s` : `${s}s`;
}

// clock is the time of day, with the day if that is another one.
function clock(date) {
  const time = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString("sv-SE")} ${time}`;
}

// plain has no character that can't be seen or turns the direction of others.
function plain(text) {
  return String(text).replace(/[^\P{C}\n]|[\u2028\u2029]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

function plural(n, one, many = one + "s") {
  return `${count(n)} ${n === 1 ? one : many}`;
}

// ---- Nodes

// make makes an element. Its attributes are strings; children are nodes or text.
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// show has node contain text, and nothing else. What is the same is not touched, so
// that a selection stays.
function show(node, text) {
  text = plain(text);
  if (node.textContent !== text) node.textContent = text;
}

function set(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// tell shows text, and the whole of it when it is pointed at.
function tell(node, text, whole = text) {
  show(node, text);
  set(node, "title", plain(whole));
}

function button(text, does, attributes = {}) {
  const b = make("button", { type: "button", ...attributes }, text);
  b.addEventListener("click", does);
  return b;
}

const kept = new WeakMap();

// rows keeps the children of parent in step with items: add makes what is new, fill
// writes what is there. Nodes that stay are not moved unless their order changes, so
// that the focus stays.
function rows(parent, items, key, add, fill) {
  if (!kept.has(parent)) {
    kept.set(parent, new Map());
    parent.replaceChildren();
  }
  const known = kept.get(parent);
  const keys = new Set(items.map(key));
  for (const [k, row] of known) {
    if (keys.has(k)) continue;
    row.chart?.forEach((c) => c.end());
    row.node.remove();
    known.delete(k);
  }
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = key(item);
    let row = known.get(k);
    if (!row) {
      row = add(item);
      known.set(k, row);
    }
    fill(row, item);
    if (row.node === at) at = at.nextElementSibling;
    else parent.insertBefore(row.node, at);
  }
}

// line makes a row of a table: the first cell is its head. classes has that of each.
function line(classes) {
  const cells = classes.map((c, i) => {
    const cell = make(i ? "td" : "th", c ? { class: c } : {});
    if (!i) cell.scope = "row";
    return cell;
  });
  return { node: make("tr", {}, ...cells), cells };
}

// empty says in a table that there is nothing.
function empty(body, width, text) {
  rows(body, [text], (t) => Symbol.for(t), () => ({ node: make("tr", {}, make("td", { class: "empty", colspan: width }, text)) }), () => {});
}

// limited shows no more of items than may be seen, and how many there are beside.
class Limited {
  constructor(more, what) {
    this.more = more;
    this.most = FEW;
    this.words = make("span");
    this.button = button("", () => {
      this.most *= 4;
      changed();
    });
    more.append(this.words, " ", this.button);
    this.what = what;
  }

  // cut returns the items to show. others is a word on more that are not here.
  cut(items, others = "") {
    const left = items.length - this.most;
    this.more.hidden = left <= 0 && !others;
    this.button.hidden = left <= 0;
    show(this.button, `Show ${count(Math.min(left, this.most * 3))} more`);
    show(this.words, [left > 0 ? `${plural(left, `more ${this.what}`)}.` : "", others].filter(Boolean).join(" "));
    return left > 0 ? items.slice(0, this.most) : items;
  }
}

// ---- What is remembered

// A Past keeps the last lines' figures, by key; NaN where there is none.
class Past {
  constructor() {
    this.end = 0; // the number of lines so far, gaps counted
    this.times = new Float64Array(SPAN).fill(NaN);
    this.series = new Map();
  }

  // advance begins a line; gap is how many are missing before it.
  advance(time, gap) {
    for (let i = 0; i <= Math.min(gap, SPAN); i++) {
      const at = this.end++ % SPAN;
      this.times[at] = NaN;
      for (const [key, s] of this.series) {
        s.values[at] = NaN;
        if (this.end - s.last > SPAN) this.series.delete(key);
      }
    }
    this.times[(this.end - 1) % SPAN] = time;
  }

  put(key, value) {
    let s = this.series.get(key);
    if (!s) this.series.set(key, s = { values: new Float64Array(SPAN).fill(NaN), last: 0 });
    s.values[(this.end - 1) % SPAN] = value;
    s.last = this.end;
  }

  // read returns the figures of a key, the oldest first.
  read(key) {
    const values = this.series.get(key)?.values;
    if (!values) return new Float64Array(SPAN).fill(NaN);
    const all = new Float64Array(SPAN);
    const oldest = this.end % SPAN;
    all.set(values.subarray(oldest));
    all.set(values.subarray(0, oldest), SPAN - oldest);
    return all;
  }

  // at returns one of them.
  at(key, place) {
    return this.series.get(key)?.values[(this.end + place) % SPAN] ?? NaN;
  }

  time(place) {
    return this.times[(this.end + place) % SPAN];
  }

  // since returns by how much a count has grown in the time that is remembered. A
  // line without it says that it is 0, a smaller one that it began again.
  since(key) {
    let grown = 0;
    let before = NaN;
    this.read(key).forEach((v, i) => {
      if (Number.isNaN(v)) {
        if (!Number.isNaN(this.time(i))) before = 0;
        return;
      }
      if (!Number.isNaN(before)) grown += v >= before ? v - before : v;
      before = v;
    });
    return grown;
  }
}

const past = new Past();
let now = null; // the newest line
const counters = new Map(); // by key, for rates

// take takes a line of /v1/watch in.
function take(snapshot) {
  snapshot.at = Date.parse(snapshot.time);
  const seconds = now ? (snapshot.at - now.at) / 1000 : 0;
  if (now && now.status.pid !== snapshot.status.pid || seconds < 0) counters.clear();
  now = snapshot;
  past.advance(snapshot.at, Math.max(0, Math.round(seconds) - 1));

  const seen = new Set();
  const rate = (key, value) => {
    const last = counters.get(key);
    counters.set(key, value);
    seen.add(key);
    const r = last !== undefined && value >= last && seconds > 0 ? (value - last) / seconds : NaN;
    past.put(`${key}/rate`, r);
    return r;
  };
  const { status } = snapshot;
  status.toTarget = rate("to_target", status.bytes_to_target);
  status.toClient = rate("to_client", status.bytes_to_client);
  status.accepting = rate("accepted", status.accepted);
  status.failing = rate("failed", status.failed);
  past.put("joined", status.joined);
  past.put("open", status.open);

  snapshot.engines = Object.keys(ENGINES).map((name) => ({ name, joined: 0, bytes: 0 }));
  for (const l of snapshot.listeners) {
    const key = `l/${l.name}`;
    l.rate = rate(key, l.bytes_to_target + l.bytes_to_client);
    l.accepting = rate(`${key}/accepted`, l.accepted);
    past.put(`${key}/joined`, l.joined);
    for (const [reason, n] of Object.entries(l.failures)) past.put(`${key}/failures/${reason}/`, n);
    for (const e of l.ends) past.put(`${key}/ends/${e.reason}/${e.direction}`, e.count);
    for (const r of l.refusals) past.put(`${key}/refusals/${r.reason}/${r.engine}`, r.count);
    for (const use of l.engines) {
      const engine = snapshot.engines.find((e) => e.name === use.engine);
      if (!engine) continue;
      engine.joined += use.joined;
      engine.bytes += use.bytes_to_target + use.bytes_to_client;
    }
  }
  for (const e of snapshot.engines) {
    e.rate = rate(`e/${e.name}`, e.bytes);
    past.put(`e/${e.name}/joined`, e.joined);
  }
  for (const u of snapshot.upstreams) {
    for (const s of u.servers) {
      const key = `s/${u.name}/${s.name}`;
      const bytes = s.bytes_to_target + s.bytes_to_client;
      const last = counters.get(key);
      s.rate = last !== undefined && bytes >= last && seconds > 0 ? (bytes - last) / seconds : NaN;
      counters.set(key, bytes);
      seen.add(key);
    }
  }
  for (const key of counters.keys()) if (!seen.has(key)) counters.delete(key);
}

// ---- Charts

const charts = new Set();
let pointed = null; // the place in the past that is pointed at, in all charts at once

// A chart draws where it can be seen only.
const onScreen = new IntersectionObserver((entries) => {
  for (const e of entries) {
    e.target.chart.visible = e.isIntersecting;
    if (e.isIntersecting) e.target.chart.draw();
  }
});

// A Chart draws curves over the time that is remembered, all on one scale from 0.
class Chart {
  constructor(curves, words, attributes) {
    this.words = words;
    this.svg = make("svg", { viewBox: `0 0 ${SPAN - 1} 100`, preserveAspectRatio: "none", role: "img", ...attributes });
    this.cursor = make("line", { class: "cursor", y1: 0, y2: 100 });
    this.curves = curves.map(({ key, color, name }) => {
      const curve = make("path", { class: `curve ${color}` });
      const area = make("path", { class: `area ${color}` });
      this.svg.append(area, curve);
      return { key, name, curve, area };
    });
    this.svg.append(this.cursor);
    this.svg.chart = this;
    this.visible = false;
    this.top = 0; // of the scale
    const point = (e) => {
      const box = this.svg.getBoundingClientRect();
      pointed = Math.min(SPAN - 1, Math.max(0, Math.round((e.clientX - box.left) / box.width * (SPAN - 1))));
      changed();
    };
    this.svg.addEventListener("pointermove", point);
    this.svg.addEventListener("pointerdown", point);
    this.svg.addEventListener("pointerleave", () => {
      pointed = null;
      changed();
    });
    charts.add(this);
    onScreen.observe(this.svg);
  }

  end() {
    charts.delete(this);
    onScreen.unobserve(this.svg);
  }

  // value is the figure of a curve that is pointed at, or the newest.
  value(i) {
    return past.at(this.curves[i].key, pointed ?? SPAN - 1);
  }

  draw() {
    if (!this.visible) return;
    const all = this.curves.map((c) => past.read(c.key));
    const most = all.flatMap((values) => [...values]).reduce((a, b) => (b > a ? b : a), 0);
    this.top = ceiling(most);
    this.curves.forEach((c, n) => {
      let d = "";
      let area = "";
      let open = -1; // where the run of figures began
      const close = (end) => {
        if (open < 0) return;
        area += `L${end} 100L${open} 100Z`;
        open = -1;
      };
      for (let i = 0; i < SPAN; i++) {
        const v = all[n][i];
        if (Number.isNaN(v)) {
          close(i - 1);
          continue;
        }
        const point = `${i} ${(100 - v / this.top * 100).toFixed(1)}`;
        d += open < 0 ? `M${point}h0` : `L${point}`;
        area += open < 0 ? `M${point}` : `L${point}`;
        if (open < 0) open = i;
      }
      close(SPAN - 1);
      set(c.curve, "d", d);
      set(c.area, "d", area);
    });
    set(this.cursor, "visibility", pointed === null ? "hidden" : "visible");
    set(this.cursor, "x1", String(pointed ?? 0));
    set(this.cursor, "x2", String(pointed ?? 0));
    set(this.svg, "aria-label", plain(`${this.curves.map((c, i) => `${c.name}: ${this.words(past.at(c.key, SPAN - 1))} now`).join(", ")}, ${this.words(most)} at most in 5 minutes`));
  }
}

// ceiling is the end of a scale: 1, 2 or 5 times a power of ten.
function ceiling(n) {
  if (!(n > 0)) return 2;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].find((f) => f * power >= n * 0.999) * power;
}

// A Big is a chart with its scale, its times and a legend that reads it.
class Big {
  constructor(title, curves, words) {
    this.chart = new Chart(curves, words, { class: "big" });
    this.words = words;
    for (const y of [0, 50, 100]) this.grid(0, y, SPAN - 1, y);
    for (const x of [59, 119, 179, 239]) this.grid(x, 0, x, 100);
    this.scale = [make("span", { class: "top" }), make("span", { class: "middle" }), make("span", { class: "bottom" }, "0")];
    this.start = make("span");
    this.when = make("span");
    this.readings = curves.map(() => make("span", { class: "reading" }));
    this.node = make("figure", {},
      make("figcaption", {}, make("b", {}, title), ...curves.map((c, i) => make("span", { class: `key ${c.color}` }, make("span", { class: "muted" }, c.name), this.readings[i]))),
      make("div", { class: "plot" }, this.chart.svg, ...this.scale),
      make("div", { class: "times" }, this.start, this.when));
  }

  grid(x1, y1, x2, y2) {
    this.chart.svg.prepend(make("line", { class: "gridline", x1, y1, x2, y2 }));
  }

  draw() {
    this.chart.draw();
    show(this.scale[0], this.words(this.chart.top));
    show(this.scale[1], this.words(this.chart.top / 2));
    show(this.start, "5 minutes ago");
    const time = pointed === null ? NaN : past.time(pointed);
    show(this.when, pointed === null ? "now" : Number.isNaN(time) ? "no figures" : clock(new Date(time)));
    this.readings.forEach((r, i) => show(r, this.words(this.chart.value(i))));
  }
}

// spark makes a small chart with its figure.
function spark(cell, key, name, color, words, narrow) {
  const chart = new Chart([{ key, color, name }], words, { class: "spark" });
  const reading = make("span", { class: "reading" });
  cell.append(make("div", { class: narrow ? "with-spark narrow" : "with-spark" }, chart.svg, reading));
  chart.read = () => {
    chart.draw();
    show(reading, words(chart.value(0)));
  };
  return chart;
}

// ---- What is asked of the daemon

const KEEP = "spliced admin token";
let token = sessionStorage.getItem(KEEP) ?? "";

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// ask asks the API. It fails with what the daemon says, or the browser does.
async function ask(method, path, { body, signal } = {}) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(`v1/${path}`, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store", credentials: "omit" });
  if (response.ok) return response;
  let message = `HTTP ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // It is not our daemon that has answered.
  }
  throw new Refused(response.status, message);
}

// say tells what was done, or why it was not.
function say(text, bad = false) {
  $("said").hidden = false;
  $("said").classList.toggle("bad", bad);
  show($("said").firstElementChild, `${clock(new Date())}  ${text}`);
}

// act does something that changes the daemon, and tells how it went.
async function act(does, done) {
  try {
    await does();
    say(done);
  } catch (err) {
    if (err.status === 401) return needToken();
    say(`Not done: ${err.message}`, true);
  }
}

const serverPath = (upstream, server, what) => `upstreams/${encodeURIComponent(upstream)}/servers/${encodeURIComponent(server)}/${what}`;

// dialog asks before something is done. choices are buttons: text, class and what
// they do; one that returns a word keeps the dialog open with it.
function dialog(title, body, choices, cancel = "Cancel") {
  const d = $("dialog");
  show($("dialog-h"), title);
  $("dialog-body").replaceChildren(...body);
  show($("dialog-said"), "");
  // Enter in a field means the last one.
  const buttons = choices.map(({ text, style, does }, i) => {
    const b = make("button", { type: i === choices.length - 1 ? "submit" : "button", ...(style ? { class: style } : {}) }, plain(text));
    b.addEventListener("click", (e) => {
      e.preventDefault();
      const wrong = does();
      if (wrong) show($("dialog-said"), wrong);
      else d.close();
    });
    return b;
  });
  const first = button(cancel, () => d.close());
  d.querySelector(".buttons").replaceChildren(first, ...buttons);
  d.showModal();
  (d.querySelector("input") ?? buttons.at(-1) ?? first).focus();
}

function paragraph(text) {
  return make("p", {}, make("span", { class: "text" }, plain(text)));
}

function drain(upstream, server) {
  const undrain = server.draining;
  const does = () => void act(() => ask("POST", serverPath(upstream.name, server.name, undrain ? "undrain" : "drain")),
    undrain ? `${server.name} gets new connections again.` : `${server.name} drains: it gets no new connections, and keeps those that it has.`);
  const others = upstream.servers.filter((s) => s !== server && (s.state === "up" || s.state === "unchecked"));
  if (undrain || others.length) return does();
  dialog(`Drain ${server.name}?`, [paragraph(`No other server of ${upstream.name} is up: new clients would be reset.`)], [{ text: "Drain", style: "danger", does }]);
}

function reweigh(upstream, server) {
  const input = make("input", { id: "weight", type: "number", min: 1, max: 1000, step: 1, value: server.weight, required: "" });
  const give = (weight) => void act(() => ask("POST", serverPath(upstream.name, server.name, "weight"), { body: { weight } }),
    weight ? `${server.name} has the weight ${weight}.` : `${server.name} has its configured weight, ${server.configured_weight}.`);
  dialog(`Weight of ${server.name}`, [make("p", {}, make("label", { for: "weight" }, "Weight, 1 to 1000 ", input))], [
    { text: `As configured: ${server.configured_weight}`, does: () => give(0) },
    { text: "Set", does: () => (input.checkValidity() ? give(input.valueAsNumber) : "Want a whole number from 1 to 1000.") },
  ]);
}

function closeSession(s) {
  const does = () => void act(() => ask("DELETE", `sessions/${s.id}`), `Session ${s.id} of ${s.client} is closed.`);
  dialog(`Close session ${s.id}?`, [
    paragraph(`${s.client} → ${s.server || s.target}${s.sni ? ` (${s.sni})` : ""}`), paragraph("Both sides get a RST at once. The log says cut=asked."),
  ], [{ text: "Close session", style: "danger", does }]);
}

async function showSession(id) {
  let s;
  try {
    s = await (await ask("GET", `sessions/${id}`)).json();
  } catch (err) {
    return say(err.message, true);
  }
  const list = make("dl");
  const add = (prefix, o) => {
    for (const [name, value] of Object.entries(o)) {
      if (typeof value === "object") add(`${name} `, value);
      else list.append(make("dt", {}, plain(prefix + name.replaceAll("_", " "))), make("dd", { class: "text" }, plain(typeof value === "number" && name !== "id" ? grouped.format(value) : value)));
    }
  };
  add("", s);
  dialog(`Session ${id}`, [list], [], "Close");
}

// ---- What is shown

const bigs = [
  new Big("Throughput", [
    { key: "to_client/rate", name: "to clients", color: "c-blue" },
    { key: "to_target/rate", name: "to servers", color: "c-orange" },
  ], speed),
  new Big("Connections", [
    { key: "open", name: "open", color: "c-grey" },
    { key: "joined", name: "joined", color: "c-green" },
  ], amount),
];
$("charts").append(...bigs.map((b) => b.node));

const moreListeners = new Limited($("listeners").querySelector(".more"), "listener");
const moreSessions = new Limited($("sessions").querySelector(".more"), "session");

// pairs shows a list of names and values: text, and a class.
function pairs(list, items) {
  rows(list, items, (i) => i.name, ({ name }) => {
    const value = make("dd", { class: "text" });
    return { node: make("div", {}, make("dt", {}, name), value), value };
  }, (row, { text, style, whole }) => {
    tell(row.value, text, whole ?? text);
    row.value.classList.toggle("bad", style === "bad");
  });
}

function showStatus() {
  const s = now.status;
  $("facts").hidden = false;
  const badge = $("state");
  show(badge, s.ready ? "ready" : s.state === "running" ? "not ready" : s.state);
  badge.className = `badge ${s.ready ? "good" : "warn"}`;
  const loaded = new Date(s.config.loaded);
  const { reload } = s;
  const facts = [
    { name: "version", text: s.version },
    { name: "process", text: String(s.pid) },
    { name: "up", text: lasting(s.uptime_s * 1000), whole: `since ${s.started}` },
    { name: "configuration", text: `${s.config.path}, read ${clock(loaded)}`, whole: s.config.files.map((f) => `${f.sha256}  ${f.path}`).join("\n") },
    { name: "last reload", text: reload ? `${clock(new Date(reload.time))} ${reload.ok ? "in force" : "refused"}` : "none yet", style: reload && !reload.ok ? "bad" : "" },
    { name: "log level", text: s.log_level },
  ];
  if (s.adopted) facts.push({ name: "adopted", text: plural(s.adopted, "connection") });
  pairs($("facts"), facts);

  const servers = now.upstreams.flatMap((u) => u.servers);
  const out = servers.filter((v) => v.state === "down" || v.state === "ejected").length;
  document.title = plain(`${out ? `${out} down · ` : ""}${s.ready ? "" : `${s.state} · `}spliced ${location.host}`);

  const troubles = [];
  if (reload && !reload.ok) troubles.push(`The reload of ${clock(new Date(reload.time))} was refused; the old configuration stays in force.\n${reload.error ?? ""}`);
  for (const u of now.upstreams) {
    for (const n of u.unresolved ?? []) troubles.push(`${n.name} of ${u.name} does not resolve: ${n.error}`);
    if (u.servers.length && !u.servers.some((v) => v.state === "up" || v.state === "unchecked")) troubles.push(`No server of ${u.name} takes new connections.`);
  }
  $("troubles").hidden = !troubles.length;
  rows($("troubles"), troubles.slice(0, 20), (t) => t, () => ({ node: make("p", { class: "notice warn text" }) }), (row, t) => show(row.node, t));
}

const figures = ["To clients", "To servers", "Sessions", "Not joined yet", "Accepted", "Failed"].map((name) => {
  const value = make("span");
  const detail = make("small");
  $("figures").append(make("div", {}, make("dt", {}, name), make("dd", {}, value, " ", detail)));
  return (text, more = "") => {
    show(value, text);
    show(detail, more);
  };
});

function showFigures() {
  const s = now.status;
  figures[0](speed(s.toClient));
  figures[1](speed(s.toTarget));
  figures[2](count(s.joined), s.max_open ? `of ${count(s.max_open)} at most` : "");
  figures[3](count(Math.max(0, s.open - s.joined)), s.held ? `held up ${plural(s.held, "time")}` : "");
  figures[4](`${often(s.accepting)}/s`, `${count(s.accepted)} in all`);
  figures[5](`${often(s.failing)}/s`, `${count(s.failed)} in all`);
  for (const b of bigs) b.draw();
}

function showListeners() {
  const shown = moreListeners.cut(now.listeners);
  const body = $("listeners").querySelector("tbody");
  if (!shown.length) return empty(body, 7, "No listener.");
  rows(body, shown, (l) => l.name, (l) => {
    const row = line(["", "", "", "n", "n", "n", "n"]);
    const [head, throughput, sessions] = row.cells;
    row.name = make("span", { class: "text" });
    row.addresses = make("small", { class: "mono text" });
    head.append(row.name, row.addresses);
    row.chart = [
      spark(throughput, `l/${l.name}/rate`, `throughput of ${l.name}`, "c-blue", speed),
      spark(sessions, `l/${l.name}/joined`, `sessions of ${l.name}`, "c-green", amount, true),
    ];
    return row;
  }, (row, l) => {
    show(row.name, l.name);
    const few = l.addresses.slice(0, 3);
    if (l.addresses.length > 3) few.push(`and ${l.addresses.length - 3} more`);
    tell(row.addresses, few.join("\n"), l.routes.map((r) => `${r.name ? `${r.name}: ` : ""}${r.when} → ${r.upstream || "reset"}`).join("\n"));
    for (const c of row.chart) c.read();
    const [, , , waiting, accepting, accepted, failed] = row.cells;
    show(waiting, count(Math.max(0, l.open - l.joined)));
    show(accepting, often(l.accepting));
    show(accepted, count(l.accepted));
    show(failed, count(l.failed));
  });
}

function showEngines() {
  rows($("engines").querySelector("tbody"), now.engines, (e) => e.name, (e) => {
    const row = line(["", "", "", "n"]);
    row.cells[0].append(e.name);
    row.chart = [
      spark(row.cells[1], `e/${e.name}/rate`, `throughput of ${e.name}`, ENGINES[e.name], speed),
      spark(row.cells[2], `e/${e.name}/joined`, `sessions of ${e.name}`, ENGINES[e.name], amount, true),
    ];
    return row;
  }, (row, e) => {
    for (const c of row.chart) c.read();
    show(row.cells[3], scaled(e.bytes));
  });
}

const TONES = { up: "good", unchecked: "", down: "bad", ejected: "bad", draining: "warn" };

const moreServers = new Map(); // by upstream

// showUpstreams fills one table: a row for each upstream, those of its servers, and
// one for those that are not shown.
function showUpstreams() {
  const items = [];
  for (const u of now.upstreams) {
    items.push({ key: `u/${u.name}`, u });
    if (!moreServers.has(u.name)) moreServers.set(u.name, new Limited(make("span", { class: "muted" }), "server"));
    const more = moreServers.get(u.name);
    // Of many, those in trouble come first.
    const ordered = u.servers.length <= more.most ? u.servers : u.servers.toSorted((a, b) => (b.state !== "up") - (a.state !== "up"));
    for (const s of more.cut(ordered)) items.push({ key: `s/${u.name}/${s.name}`, u, s });
    if (!more.more.hidden) items.push({ key: `m/${u.name}`, u, more });
  }
  rows($("upstreams").querySelector("tbody"), items, (i) => i.key, ({ s, more }) => (s ? serverRow() : more ? moreRow(more) : upstreamRow()), (row, i) => row.fill(i));
}

function upstreamRow() {
  const name = make("span", { class: "text" });
  const about = make("small");
  return {
    node: make("tr", { class: "group" }, make("th", { colspan: 10, scope: "colgroup" }, name, about)),
    fill({ u }) {
      show(name, u.name);
      const states = new Map();
      for (const s of u.servers) states.set(s.state, (states.get(s.state) ?? 0) + 1);
      show(about, [u.balance, [...states].map(([state, n]) => `${count(n)} ${state}`).join(", ") || "no server yet",
        u.queued ? `${count(u.queued)} of ${count(u.max_queue)} wait in the queue` : ""].filter(Boolean).join(" · "));
    },
  };
}

function moreRow(more) {
  return { node: make("tr", {}, make("td", { colspan: 10 }, more.more)), fill() {} };
}

function serverRow() {
  const row = line(["text", "", "n", "n", "n", "n", "n", "n", "words", "n"]);
  const [name, state, weight, active, rate, connected, failed, checks, trouble, action] = row.cells;
  const badge = make("span", { class: "badge" });
  const beside = make("small");
  state.append(badge, beside);
  const reweighs = button("", () => reweigh(row.u, row.s), { class: "plain" });
  const configured = make("small");
  weight.append(reweighs, configured);
  const link = make("a");
  const most = make("span", { class: "muted" });
  active.append(link, most);
  const failures = make("span");
  const why = make("small");
  failed.append(failures, why);
  const error = make("span", { class: "text" });
  const since = make("small");
  trouble.append(error, since);
  const drains = button("", () => drain(row.u, row.s));
  action.append(drains);
  row.fill = ({ u, s }) => {
    row.u = u;
    row.s = s;
    tell(name, s.name + (s.backup ? " (backup)" : ""), s.address);
    show(badge, s.state);
    badge.className = `badge ${TONES[s.state] ?? ""}`;
    const also = ["down", "ejected"].filter((f) => s[f] && s.state !== f);
    if (s.ejected && s.ejected_until) also.push(`for ${lasting(Date.parse(s.ejected_until) - now.at)}`);
    show(beside, also.join(", "));
    show(reweighs, String(s.weight));
    set(reweighs, "aria-label", plain(`Weight of ${s.name}: ${s.weight}. Change it`));
    show(configured, s.weight === s.configured_weight ? "" : `${s.configured_weight} configured`);
    show(link, count(s.active));
    set(link, "href", `#${new URLSearchParams({ upstream: u.name, server: s.name })}`);
    set(link, "aria-label", plain(`${plural(s.active, "connection")} of ${s.name}: show them`));
    show(most, s.max_active ? ` of ${count(s.max_active)}` : "");
    show(rate, speed(s.rate));
    rate.classList.toggle("idle", !s.rate);
    show(connected, count(s.connected));
    show(failures, count(s.connect_failed));
    show(why, Object.entries(s.connect_failures).sort((a, b) => b[1] - a[1]).map(([r, n]) => `${r} ${count(n)}`).join(", "));
    show(checks, s.checks ? `${count(s.checks_failed)} of ${count(s.checks)}` : "–");
    show(error, s.error ?? "");
    error.classList.toggle("muted", !s.down && !s.ejected); // it is over
    show(since, s.since ? `${s.down ? "down" : "up"} since ${clock(new Date(s.since))}` : "");
    show(drains, s.draining ? "Undrain" : "Drain");
    set(drains, "aria-label", plain(`${s.draining ? "Undrain" : "Drain"} ${s.name} of ${u.name}`));
  };
  return row;
}

// choices keeps the options of a select in step with names; the first stands for
// all.
function choices(select, names) {
  const chosen = select.value;
  const all = chosen && !names.includes(chosen) ? [...names, chosen] : names;
  rows(select, ["", ...all], (n) => n, (n) => ({ node: make("option", { value: n }, n ? plain(n) : "all") }), () => {});
}

function showReasons() {
  const { listener } = $("which").elements;
  choices(listener, now.listeners.map((l) => l.name));
  const of = now.listeners.filter((l) => !listener.value || l.name === listener.value);
  const sum = (kind, entries, width) => {
    const found = new Map();
    for (const l of of) {
      for (const [reason, detail, n] of entries(l)) {
        if (!n) continue;
        const key = `${reason}/${detail}`;
        const r = found.get(key) ?? { key, reason, detail, all: 0, late: 0 };
        r.all += n;
        r.late += past.since(`l/${l.name}/${kind}/${key}`);
        found.set(key, r);
      }
    }
    const body = $(kind).querySelector("tbody");
    const list = [...found.values()].sort((a, b) => b.all - a.all || (a.key < b.key ? -1 : 1));
    if (!list.length) return empty(body, width, "None.");
    rows(body, list, (r) => r.key, () => line(width === 4 ? ["", "", "n", "n"] : ["", "n", "n"]), (row, r) => {
      const cells = width === 4 ? [r.reason, r.detail, count(r.late), count(r.all)] : [r.reason, count(r.late), count(r.all)];
      cells.forEach((c, i) => show(row.cells[i], c));
    });
  };
  sum("failures", (l) => Object.entries(l.failures).map(([reason, n]) => [reason, "", n]), 3);
  sum("ends", (l) => l.ends.map((e) => [e.reason, e.direction === "to_client" ? "client" : "server", e.count]), 4);
  sum("refusals", (l) => l.refusals.map((r) => [r.reason, r.engine, r.count]), 4);
}

// ---- Sessions

const filter = $("filter");
const NAMES = ["client", "listener", "upstream", "server", "engine"];

// Columns: the title, what to sort by, and the class of its cells.
const COLUMNS = [
  { title: "No.", by: (s) => s.id, style: "" },
  { title: "Client", by: (s) => s.client, style: "mono text" },
  { title: "TLS name", by: (s) => s.sni ?? "", style: "text long" },
  { title: "Listener", by: (s) => s.listener ?? "", style: "text" },
  { title: "Server", by: (s) => s.server ?? s.target, style: "mono text" },
  { title: "Engine", by: (s) => s.engine, style: "" },
  { title: "To client", by: (s) => s.rate_to_client, style: "n", down: true },
  { title: "To server", by: (s) => s.rate_to_target, style: "n", down: true },
  { title: "Bytes", by: (s) => s.bytes_to_client + s.bytes_to_target, style: "n", down: true },
  { title: "Age", by: (s) => -Date.parse(s.started), style: "n", down: true },
  { title: "Idle", by: (s) => -Date.parse(s.last_progress), style: "n", down: true },
  { title: "", style: "n" },
];
const sorted = { column: null, down: true }; // null: the busiest first
let found = null; // what the filter has found: sessions, more, or why it has not; null without one
let order = []; // of the rows that are shown

for (const column of COLUMNS) {
  const head = make("th", { scope: "col", ...(column.style === "n" ? { class: "n" } : {}) });
  if (column.by) {
    head.append(button(column.title, () => {
      sorted.down = sorted.column === column ? !sorted.down : !!column.down;
      sorted.column = column;
      order = [];
      changed();
    }));
  } else {
    head.append(make("span", { class: "hidden" }, "Actions"));
  }
  column.head = head;
  $("sessions").querySelector("thead tr").append(head);
}

function conditions() {
  const c = new URLSearchParams();
  for (const name of NAMES) {
    const value = filter.elements[name].value.trim();
    if (value) c.set(name, value);
  }
  return c;
}

// The filter is in the address too, so that it can be linked to.
function readAddress() {
  const c = new URLSearchParams(location.hash.slice(1));
  if (!NAMES.some((n) => c.has(n))) return;
  for (const name of NAMES) {
    const value = c.get(name) ?? "";
    const field = filter.elements[name];
    if (field.tagName === "SELECT") choices(field, value ? [value] : []);
    field.value = value;
  }
  $("sessions").scrollIntoView();
  filterAgain();
}

function filterChanged() {
  history.replaceState(null, "", `${location.pathname}${location.search}${conditions().size ? `#${conditions()}` : ""}`);
  filterAgain();
}

let asking = null; // the question for sessions that is under way, or waits
function filterAgain() {
  asking?.abort();
  asking = null;
  found = null;
  order = [];
  if (conditions().size && now) void follow();
  changed();
}

// follow asks for the sessions of the filter again and again, and rates them by
// what they have carried since.
async function follow() {
  const mine = asking = new AbortController();
  const wanted = conditions();
  wanted.set("limit", FILTERED);
  const last = new Map();
  while (!mine.signal.aborted) {
    const began = performance.now();
    if (!document.hidden && !away) {
      try {
        const answer = await (await ask("GET", `sessions?${wanted}`, { signal: mine.signal })).json();
        for (const s of answer.sessions) {
          const was = last.get(s.id) ?? { at: 0, target: 0, client: 0 };
          const seconds = was.at ? (began - was.at) / 1000 : Math.max(1, (now.at - Date.parse(s.started)) / 1000);
          s.rate_to_target = (s.bytes_to_target - was.target) / seconds;
          s.rate_to_client = (s.bytes_to_client - was.client) / seconds;
        }
        last.clear();
        for (const s of answer.sessions) last.set(s.id, { at: began, target: s.bytes_to_target, client: s.bytes_to_client });
        found = { sessions: answer.sessions, more: answer.next !== undefined };
      } catch (err) {
        if (mine.signal.aborted) return;
        if (err.status === 401) return needToken();
        if (err.status) found = { sessions: [], wrong: err.message };
      }
      if (mine.signal.aborted) return;
      changed();
    }
    // A big answer is asked for less often.
    await pause(Math.max(1000, 4 * (performance.now() - began)), mine.signal);
  }
}

filter.addEventListener("submit", (e) => e.preventDefault());
filter.addEventListener("change", filterChanged);
let typing = 0;
filter.elements.client.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(filterChanged, 300);
});
filter.addEventListener("reset", () => setTimeout(filterChanged));
addEventListener("hashchange", readAddress);

function showSessions() {
  choices(filter.elements.listener, now.listeners.map((l) => l.name));
  choices(filter.elements.upstream, now.upstreams.map((u) => u.name));
  const { value } = filter.elements.upstream;
  choices(filter.elements.server, [...new Set(now.upstreams.filter((u) => !value || u.name === value).flatMap((u) => u.servers.map((s) => s.name)))]);
  choices(filter.elements.engine, Object.keys(ENGINES));

  const filtered = conditions().size > 0;
  const wrong = filtered ? found?.wrong : undefined;
  show($("filter-said"), wrong ?? "");
  $("filter-said").classList.toggle("bad", !!wrong);
  set(filter.elements.client, "aria-invalid", wrong?.startsWith("client") ? "true" : null);

  const all = filtered ? found?.sessions ?? [] : now.sessions ?? [];
  const complete = filtered ? !found?.more : now.status.joined <= all.length;
  const { held, ordered } = arrange(all, complete);
  let others = "";
  if (filtered && found?.more) others = `These are the first ${count(FILTERED)} by number that the filter finds; there are more.`;
  else if (!filtered && now.status.joined > all.length) others = `${plural(now.status.joined - all.length, "session")} beside the ${count(all.length)} busiest: filter to find them.`;
  const number = !filtered ? count(now.status.joined) : found ? `${found.more ? "more than " : ""}${count(all.length)} of ${count(now.status.joined)}` : "…";
  show($("count"), `${number} · ${held ? "rows stay in place while you are at the table" : sorted.column ? `by ${sorted.column.title}` : "the busiest first"}`);
  const shown = moreSessions.cut(ordered, others);
  const body = $("sessions").querySelector("tbody");
  for (const c of COLUMNS) set(c.head, "aria-sort", c === sorted.column ? (sorted.down ? "descending" : "ascending") : null);
  if (!shown.length) return empty(body, COLUMNS.length, !filtered ? "No session." : !found ? "Looking…" : wrong ? "" : "The filter finds no session.");
  rows(body, shown, (s) => s.id, (s) => {
    const row = line(COLUMNS.map((c) => c.style));
    row.id = button(String(s.id), () => void showSession(s.id), { class: "plain", "aria-label": `Session ${s.id}: all that is known` });
    row.cells[0].append(row.id);
    row.close = button("Close", () => closeSession(row.session), { class: "plain", "aria-label": plain(`Close session ${s.id} of ${s.client}`) });
    row.cells.at(-1).append(row.close);
    return row;
  }, (row, s) => {
    row.session = s;
    row.node.classList.toggle("gone", !!s.gone);
    row.close.disabled = !!s.gone;
    const [, client, sni, listener, server, engine, toClient, toTarget, bytes, age, idle] = row.cells;
    show(client, s.client);
    tell(sni, s.sni ?? "");
    tell(listener, s.listener ?? "", s.route ? `route ${s.route}` : s.listener ?? "");
    tell(server, s.server || s.target, `${s.upstream ?? ""} ${s.target}`.trim());
    tell(engine, s.engine, s.engine_reason);
    show(toClient, speed(s.rate_to_client));
    show(toTarget, speed(s.rate_to_target));
    toClient.classList.toggle("idle", !s.rate_to_client);
    toTarget.classList.toggle("idle", !s.rate_to_target);
    tell(bytes, scaled(s.bytes_to_client + s.bytes_to_target), `${count(s.bytes_to_client)} to the client, ${count(s.bytes_to_target)} to the server`);
    tell(age, lasting(now.at - Date.parse(s.started)), s.started);
    tell(idle, lasting(now.at - Date.parse(s.last_progress)), s.last_progress);
  });
}

// arrange sorts sessions. While somebody points at the table or has the focus in it,
// rows stay where they are and those that are gone stay too: nobody is to hit the
// wrong one. complete: what is not among sessions has ended.
function arrange(sessions, complete) {
  const body = $("sessions").querySelector("tbody");
  const held = order.length > 0 && (body.matches(":hover") || body.contains(document.activeElement));
  const by = sorted.column?.by ?? ((s) => s.rate_to_client + s.rate_to_target);
  const sign = sorted.down ? -1 : 1;
  const compare = (a, b) => {
    const [x, y] = [by(a), by(b)];
    return (x < y ? -1 : x > y ? 1 : 0) * sign || a.id - b.id;
  };
  const fresh = sessions.toSorted(compare);
  if (held) {
    const by = new Map(fresh.map((s) => [s.id, s]));
    const stay = order.filter((s, i) => by.has(s.id) || i < moreSessions.most)
      .map((s) => by.get(s.id) ?? { ...s, gone: complete, rate_to_client: 0, rate_to_target: 0 });
    const old = new Set(order.map((s) => s.id));
    order = [...stay, ...fresh.filter((s) => !old.has(s.id))];
  } else {
    order = fresh;
  }
  return { held, ordered: order };
}

// ---- The daemon, watched

let drawing = false;

// changed has all be shown again, once, when the browser paints next: a hidden page
// is not painted.
function changed() {
  if (drawing || !now) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    showStatus();
    showFigures();
    showListeners();
    showEngines();
    showUpstreams();
    showSessions();
    showReasons();
  });
}

function pause(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      done();
    }, { once: true });
  });
}

let away = null; // since when, and why, the daemon does not answer
let heard = 0; // when the last line came, by performance.now

function showLink() {
  const quiet = performance.now() - heard;
  document.body.classList.toggle("stale", !!away);
  $("away").hidden = !away;
  if (away) show($("away"), `No answer from the daemon since ${clock(away.since)}: ${away.why}. Trying again.`);
  show($("link"), away ? "not connected" : !heard ? "connecting" : quiet > 3000 ? `nothing heard for ${lasting(quiet)}` : "live");
}

// watch takes lines in until the connection ends, or signal has it end.
async function watch(signal) {
  const stop = new AbortController();
  signal.addEventListener("abort", () => stop.abort(), { once: true });
  heard = performance.now();
  const dog = setInterval(() => {
    showLink();
    if (performance.now() - heard > STALLED) stop.abort(new Error(`it has said nothing for ${STALLED / 1000} seconds`));
  }, 1000);
  try {
    const response = await ask("GET", `watch?interval=1s&sessions=${BUSIEST}`, { signal: stop.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { done, value } = await reader.read();
      if (done) throw new Error("it has ended the connection");
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      const process = now?.status.pid;
      for (const text of lines) take(JSON.parse(text));
      if (lines.length) arrived(process);
    }
  } catch (err) {
    throw stop.signal.aborted ? stop.signal.reason : err;
  } finally {
    clearInterval(dog);
    stop.abort();
  }
}

// arrived is called when lines have come. process is what was watched before.
function arrived(process) {
  heard = performance.now();
  document.querySelector("main").hidden = false;
  $("ask").hidden = true;
  $("forget").hidden = !token;
  const { pid } = now.status;
  if (process && process !== pid) say(`Process ${pid} has taken the place of ${process}; counters begin again.`);
  else if (away) say(`The daemon answers again, after ${lasting(Date.now() - away.since)}.`);
  away = null;
  showLink();
  if (!asking && conditions().size) filterAgain();
  changed();
}

let watching = null; // ends what is watched

async function stayWatching() {
  const { signal } = watching = new AbortController();
  for (let wait = 500; !signal.aborted;) {
    const lines = past.end;
    try {
      await watch(signal);
    } catch (err) {
      if (signal.aborted) return;
      if (err.status === 401) return needToken();
      if (past.end > lines) wait = 500;
      away = { since: away?.since ?? new Date(), why: err.message };
      counters.clear(); // no rate is taken over a gap
      showLink();
    }
    await pause(wait, signal);
    wait = Math.min(2 * wait, 5000);
  }
}

// needToken hides what there is and asks for the token.
function needToken() {
  const wrong = token !== "";
  token = "";
  sessionStorage.removeItem(KEEP);
  watching.abort();
  asking?.abort();
  asking = null;
  away = null;
  showLink();
  document.querySelector("main").hidden = true;
  $("troubles").hidden = true;
  $("facts").hidden = true;
  $("forget").hidden = true;
  $("ask").hidden = false;
  if ($("dialog").open) $("dialog").close();
  show($("state"), "locked");
  $("state").className = "badge";
  show($("link"), "");
  document.title = `locked · spliced ${location.host}`;
  if (wrong) say("The daemon does not accept this token.", true);
  $("token").focus();
}

$("ask").addEventListener("submit", (e) => {
  e.preventDefault();
  const word = $("token").value.trim();
  if (!/^[!-~]+$/.test(word)) return say("A token is one word of printable ASCII characters.", true);
  $("token").value = "";
  token = word;
  sessionStorage.setItem(KEEP, token);
  $("said").hidden = true;
  watching.abort();
  void stayWatching();
});
$("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEEP);
  location.reload();
});
$("said").querySelector("button").addEventListener("click", () => {
  $("said").hidden = true;
});
$("which").addEventListener("submit", (e) => e.preventDefault());
$("which").addEventListener("change", changed);

show($("host"), location.host);
readAddress();
void stayWatching();
