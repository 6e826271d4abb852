package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/internal/testnet/browser"
)

// hostileName is what a client of a listener with tls may say that it wants: it is
// not a host name, and crypto/tls takes it.
const hostileName = `<img src=x onerror=document.title='pwned'><b>x`

// A pagedDaemon is one that a browser looks at.
type pagedDaemon struct {
	*operatedDaemon
	*browser.Browser
	t       *testing.T
	clients []net.Conn // three of web, one of tls
}

func runPaged(t *testing.T) *pagedDaemon {
	t.Helper()
	dir := t.TempDir()
	cert, key := writeCertificate(t, dir, "www.test")
	one, two := testnet.Echo(t, "tcp", "127.0.0.1:0"), testnet.Echo(t, "tcp", "127.0.0.1:0")
	d := &operatedDaemon{socket: filepath.Join(dir, "admin.sock"), server: one}
	d.text = fmt.Sprintf(`admin: {address: ["unix:%s", "127.0.0.1:0"]}
listeners:
  web: {address: 127.0.0.1:0, upstream: web}
  tls: {address: 127.0.0.1:0, upstream: web, tls: {certificates: [{certificate: %s, key: %s}]}}
  sick: {address: 127.0.0.1:0, upstream: sick}
upstreams:
  sick: {servers: "127.0.0.1:1", health: {interval: 1s}}
  web: {servers: [%q, %q]}
`, d.socket, cert, key, one, two)
	d.daemonProcess = runDaemon(t, d.text)
	_, d.tcp, _ = strings.Cut(d.stderr.await(t, "msg=admin address=127"), "address=")
	p := &pagedDaemon{operatedDaemon: d, t: t}
	for i := range 4 {
		listener := "web"
		if i == 3 {
			listener = "tls"
		}
		c, err := net.DialTimeout("tcp", d.addr(t, listener), patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		if listener == "tls" {
			c = tls.Client(c, &tls.Config{ServerName: hostileName, InsecureSkipVerify: true}) //nolint:gosec // the name is what is tested
		}
		p.clients = append(p.clients, c)
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	d.stderr.await(t, `msg="server down" upstream=sick`)
	// A client for whom there is no server is reset, maybe before it knows that it is
	// connected.
	if c, err := net.DialTimeout("tcp", d.addr(t, "sick"), patience); err == nil {
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("a client without a server: %v", err)
		}
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	d.stderr.await(t, `msg="no target reached"`)
	p.Browser = browser.Start(t)
	p.Window("light", 1400, 900)
	p.Open("http://" + d.tcp + "/")
	return p
}

// click clicks the button with that label.
func (p *pagedDaemon) click(label string) {
	p.t.Helper()
	p.Await(fmt.Sprintf("named(%q)?.disabled === false", label))
	p.Eval(fmt.Sprintf("named(%q).click()", label), nil)
}

// choose gives a field of the filter a value, as a person does.
func (p *pagedDaemon) choose(field, value string) {
	p.t.Helper()
	p.Eval(fmt.Sprintf(`(() => { const f = document.querySelector('#filter [name=%s]'); f.value = %q; f.dispatchEvent(new Event('change', {bubbles: true})) })()`, field, value), nil)
}

// Functions for the conditions below.
const helpers = `
globalThis.named = (label) => [...document.querySelectorAll('button')].find((b) => b.checkVisibility() && (b.getAttribute('aria-label') ?? b.textContent) === label);
globalThis.texts = (selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent);
globalThis.sessions = (column) => texts('#sessions tbody tr td:nth-child(' + column + ')');
globalThis.server = (name) => [...document.querySelectorAll('#upstreams tbody tr')].find((r) => r.firstChild.textContent === name);
0`

// A person sees what the daemon does, and does something about it.
func TestAdminPage(t *testing.T) {
	testnet.Need(t, "chromium")
	testnet.Leaks(t)
	p := runPaged(t)
	p.Eval(helpers, nil)
	p.Await(`document.querySelector('#state').textContent === 'ready' && document.querySelector('#link').textContent === 'live'`)

	// What there is.
	p.Await(`document.querySelectorAll('#sessions tbody tr').length === 4`)
	p.Await(`texts('#listeners tbody th span').join() === 'sick,tls,web'`)
	p.Await(`texts('#engines tbody th').join() === 'wire,splice,sockmap,copy'`)
	p.Await(`texts('#failures tbody tr').some((r) => r.startsWith('no-server-up'))`)
	p.Await(`server('127.0.0.1:1').textContent.includes('down') && server('127.0.0.1:1').textContent.includes('refused')`)
	p.Await(`texts('#troubles p').join().includes('No server of sick takes new connections.')`)
	p.Await(`document.querySelector('#facts').textContent.includes(` + fmt.Sprintf("%q", p.config) + `)`)
	// Two lines make the first rate, three a curve.
	p.Await(`/L/.test(document.querySelector('#charts .curve.c-green').getAttribute('d'))`)
	p.Await(`/L/.test(document.querySelector('#listeners tbody tr:last-child .curve.c-green').getAttribute('d'))`)

	// A name is text, whatever is in it.
	p.Await(fmt.Sprintf("sessions(3).includes(%q)", hostileName))
	p.Await(`document.querySelectorAll('img, b:not(figcaption b)').length === 0 && document.title.startsWith('1 down')`)

	t.Run("filter", func(t *testing.T) {
		p.choose("listener", "tls")
		p.Await(`sessions(4).join() === 'tls'`)
		p.Await(`location.hash === '#listener=tls'`)
		p.choose("listener", "")
		p.choose("client", p.clients[1].LocalAddr().String())
		p.Await(fmt.Sprintf("sessions(2).join() === %q", p.clients[1].LocalAddr()))
		p.choose("client", "nonsense")
		p.Await(`document.querySelector('#filter-said').textContent.includes('192.0.2.0/24') && document.querySelector('[name=client]').ariaInvalid === 'true'`)
		p.choose("client", "192.0.2.0/24")
		p.Await(`texts('#sessions tbody td').join() === 'The filter finds no session.'`)
		p.click("Clear")
		p.Await(`sessions(2).length === 4`)
		p.Eval(`server('`+p.server+`').querySelector('a').click()`, nil)
		p.Await(`sessions(5).length > 0 && sessions(5).length < 4 && sessions(5).every((s) => s === '` + p.server + `')`)
		p.click("Clear")
		p.Await(`sessions(2).length === 4`)
	})
	t.Run("sort", func(t *testing.T) {
		p.click("No.")
		p.Await(`document.querySelector('#sessions th').ariaSort === 'ascending' && texts('#sessions tbody th').join() === '1,2,3,4'`)
		p.click("No.")
		p.Await(`document.querySelector('#sessions th').ariaSort === 'descending' && texts('#sessions tbody th').join() === '4,3,2,1'`)
	})
	t.Run("drain", func(t *testing.T) {
		p.click("Drain " + p.server + " of web")
		p.Await(`server('` + p.server + `').querySelector('.badge').textContent === 'draining'`)
		if s := p.web(t); !s.Draining || s.State != "draining" {
			t.Errorf("the API says %+v", s)
		}
		// The last one: it is asked whether that is meant.
		p.Eval(`[...document.querySelectorAll('#upstreams button')].filter((b) => b.textContent === 'Drain' && b.ariaLabel.endsWith('of web'))[0].click()`, nil)
		p.Await(`document.querySelector('dialog').open && document.querySelector('#dialog-body').textContent.startsWith('No other server of web')`)
		p.click("Cancel")
		p.click("Undrain " + p.server + " of web")
		p.Await(`server('` + p.server + `').querySelector('.badge').textContent === 'unchecked'`)
		if s := p.web(t); s.Draining {
			t.Errorf("the API says %+v", s)
		}
	})
	t.Run("weight", func(t *testing.T) {
		p.click("Weight of " + p.server + ": 1. Change it")
		p.Await(`document.activeElement === document.querySelector('#weight')`)
		p.Eval(`document.querySelector('#weight').value = '0'`, nil)
		p.click("Set")
		p.Await(`document.querySelector('#dialog-said').textContent.includes('1 to 1000')`)
		p.Eval(`document.querySelector('#weight').value = '7'`, nil)
		p.click("Set")
		p.Await(`named('Weight of ` + p.server + `: 7. Change it') && server('` + p.server + `').textContent.includes('1 configured')`)
		if s := p.web(t); s.Weight != 7 {
			t.Errorf("the API says %+v", s)
		}
	})
	t.Run("close", func(t *testing.T) {
		var all adminapi.Sessions
		p.ask(t, http.MethodGet, "/v1/sessions", nil, &all)
		client := p.clients[0].LocalAddr().String()
		var id uint64
		for _, s := range all.Sessions {
			if s.Client == client {
				id = s.ID
			}
		}
		p.click(fmt.Sprintf("Session %d: all that is known", id))
		p.Await(fmt.Sprintf("document.querySelector('dialog').open && texts('dialog dd').includes(%q)", client))
		p.Eval(`document.querySelector('dialog .buttons button').click()`, nil)
		p.click(fmt.Sprintf("Close session %d of %s", id, client))
		p.Await(`document.activeElement.textContent === 'Close session'`)
		p.click("Close session")
		if _, err := p.clients[0].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client got %v, want a reset", err)
		}
		p.stderr.await(t, "cut=asked")
		p.Await(fmt.Sprintf("document.querySelector('#said').textContent.includes('Session %d of %s is closed')", id, client))
		p.Eval(`document.activeElement.blur()`, nil)
		p.Await(`sessions(2).length === 3`)
	})
	t.Run("dark", func(t *testing.T) {
		look := func(scheme string, width int) (seen struct {
			Ground, Ink string
			Pale        []string
			Scroll      int
		},
		) {
			p.Window(scheme, width, 900)
			p.Eval(lookAtAdminPage, &seen)
			if len(seen.Pale) > 0 {
				t.Errorf("%s: too little contrast: %q", scheme, seen.Pale)
			}
			if seen.Scroll > width {
				t.Errorf("%s, %d wide: the page is %d wide", scheme, width, seen.Scroll)
			}
			return seen
		}
		light, dark := look("light", 1400), look("dark", 1400)
		if light.Ground == dark.Ground || light.Ink == dark.Ink {
			t.Errorf("light is %s on %s, dark is %s on %s", light.Ink, light.Ground, dark.Ink, dark.Ground)
		}
		look("light", 360)
	})
	for _, c := range p.Complaints {
		// The browser tells of every answer that is an error; this one was wanted.
		if !strings.Contains(c, "/v1/sessions?client=nonsense&") {
			t.Errorf("the browser complains: %s", c)
		}
	}
	for _, url := range p.Requested {
		if !strings.HasPrefix(url, "http://"+p.tcp+"/") {
			t.Errorf("the page has asked for %s", url)
		}
	}

	// The daemon goes away and comes back as another process, and goes for good.
	t.Cleanup(func() {
		for _, pid := range p.generations()[1:] {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	p.ask(t, http.MethodPost, "/v1/upgrade", nil, nil)
	p.stderr.await(t, "connections taken over")
	p.Await(fmt.Sprintf("document.querySelector('#said').textContent.includes('Process %d has taken the place of %d')", p.last(), p.cmd.Process.Pid))
	p.Await(`document.querySelector('#link').textContent === 'live' && document.querySelector('#away').hidden`)
	for _, c := range p.clients {
		_ = c.Close()
	}
	p.stopLast(t)
	p.Await(`document.querySelector('#away').checkVisibility() && document.querySelector('#away').textContent.includes('No answer from the daemon since')`)
	if code := p.wait(); code != exitOK {
		t.Errorf("exit code %d of the first process", code)
	}
}

// web returns the first server of the upstream web.
func (p *pagedDaemon) web(t *testing.T) adminapi.Server {
	t.Helper()
	var all adminapi.Upstreams
	p.ask(t, http.MethodGet, "/v1/upstreams", nil, &all)
	for _, u := range all.Upstreams {
		if u.Name == "web" {
			return u.Servers[0]
		}
	}
	t.Fatalf("no upstream web in %+v", all)
	return adminapi.Server{}
}

// lookAtAdminPage tells which texts have less than the 4.5:1 that WCAG 2 wants of a
// contrast.
const lookAtAdminPage = `(() => {
  const rgb = (c) => (c.match(/[\d.]+/g) || []).map(Number);
  const lum = (c) => { const l = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c } return [255, 255, 255] };
  const pale = new Set();
  for (const e of document.querySelectorAll('body *')) {
    if (!e.checkVisibility() || e.disabled || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [lum(rgb(getComputedStyle(e).color)), lum(ground(e))];
    if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) pale.add(e.textContent.slice(0, 40));
  }
  const body = getComputedStyle(document.body);
  return {Ground: body.backgroundColor, Ink: body.color, Pale: [...pale], Scroll: document.documentElement.scrollWidth};
})()`

// With a token the page asks for it, and keeps it as long as the tab is open.
func TestAdminPageToken(t *testing.T) {
	testnet.Need(t, "chromium")
	testnet.Leaks(t)
	const word = "0123456789abcdef"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(word), 0o600); err != nil {
		t.Fatal(err)
	}
	d := runDaemon(t, "admin: {address: \"127.0.0.1:0\", token_file: "+file+"}\nlisteners:\n  web: {address: 127.0.0.1:0, upstream: web}\nupstreams:\n  web: {servers: \"127.0.0.1:1\"}\n")
	_, address, _ := strings.Cut(d.stderr.await(t, "msg=admin address="), "address=")
	b := browser.Start(t)
	b.Open("http://" + address + "/")
	const asked = `document.querySelector('#ask').checkVisibility() && !document.querySelector('main').checkVisibility()`
	try := func(token string) {
		b.Eval(fmt.Sprintf(`document.querySelector('#token').value = %q; document.querySelector('#ask button').click()`, token), nil)
	}
	b.Await(asked)
	try("fedcba9876543210")
	b.Await(asked + ` && document.querySelector('#said').textContent.includes('does not accept this token')`)
	try(word)
	const shown = `document.querySelector('main').checkVisibility() && !document.querySelector('#ask').checkVisibility() && document.querySelectorAll('#listeners tbody tr').length === 1`
	b.Await(shown)
	b.Await(`Object.values(sessionStorage).join() === '` + word + `' && localStorage.length === 0 && document.cookie === ''`)
	b.Open("http://" + address + "/")
	b.Await(shown)
	// Another token: what is done next asks for it.
	if err := os.WriteFile(file, []byte("fedcba9876543210"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.signal(syscall.SIGHUP)
	d.stderr.await(t, "msg=reloaded")
	b.Eval(`document.querySelector('#upstreams tbody button').click(); [...document.querySelectorAll('dialog button')].at(-1).click()`, nil)
	b.Await(asked)
	b.Await(`sessionStorage.length === 0`)
	for _, url := range b.Requested {
		if strings.Contains(url, word) {
			t.Errorf("the token is in an address: %s", url)
		}
	}
	d.stop(t)
}
