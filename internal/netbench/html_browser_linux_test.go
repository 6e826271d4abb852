package netbench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// seenChart is what the browser tells about a drawing.
type seenChart struct {
	ID                  string
	Left, Width, Height float64
	Visible             bool
	Bars, Curves        int
	Thin                int      // bars without any extent
	Pale                int      // bars and curves that can't be told from the page
	Cut                 []string // texts that reach out of the drawing
	Overlap             []string // texts upon each other
}

type seenPage struct {
	Scheme     string
	Background string
	Ink        string
	Width      float64 // of the window
	Scroll     float64 // of the whole page
	Charts     []seenChart
}

// lookAtPage is run by the browser. It knows what is really painted: fonts,
// sizes and colours.
const lookAtPage = `(() => {
  const rgb = c => (c.match(/[\d.]+/g) || []).slice(0, 3).map(Number);
  const lum = c => { const l = rgb(c).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  const contrast = (a, b) => { a = lum(a); b = lum(b); return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
  const body = getComputedStyle(document.body);
  const charts = [...document.querySelectorAll('svg.chart')].map(svg => {
    const box = svg.getBoundingClientRect();
    const bars = [...svg.querySelectorAll('rect.bar:not(.swatch)')];
    const curves = [...svg.querySelectorAll('polyline.curve')];
    const texts = [...svg.querySelectorAll('text')];
    const boxes = texts.map(t => t.getBoundingClientRect());
    const overlap = [];
    for (let i = 0; i < texts.length; i++) for (let j = 0; j < i; j++) {
      const a = boxes[i], b = boxes[j];
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Lines of text may touch: a third of a line is too much.
      if (x > 1 && y > Math.min(a.height, b.height) / 3) overlap.push(texts[j].textContent + ' / ' + texts[i].textContent);
    }
    const paint = e => { const s = getComputedStyle(e); return s.fill === 'none' ? s.stroke : s.fill; };
    return {
      ID: svg.getAttribute('aria-labelledby'), Left: box.left, Width: box.width, Height: box.height,
      Visible: svg.checkVisibility({opacityProperty: true, visibilityProperty: true}),
      Bars: bars.length, Curves: curves.length,
      Thin: bars.filter(b => { const r = b.getBoundingClientRect(); return r.width < 1 || r.height < 1; }).length,
      Pale: [...bars, ...curves].filter(e => contrast(paint(e), body.backgroundColor) < 3).length,
      Cut: texts.filter((t, i) => boxes[i].left < box.left - 1 || boxes[i].right > box.right + 1 ||
        boxes[i].top < box.top - 1 || boxes[i].bottom > box.bottom + 1).map(t => t.textContent),
      Overlap: overlap,
    };
  });
  return JSON.stringify({
    Scheme: matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light',
    Background: body.backgroundColor, Ink: body.color, Width: innerWidth, Scroll: document.documentElement.scrollWidth, Charts: charts,
  });
})()`

func TestBrowserShowsAllCharts(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	f := sampleRun()
	var page bytes.Buffer
	if err := WriteHTML(&page, f); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(name, page.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	bars, curves := map[string]int{}, map[string]int{}
	for _, g := range groupsOf(f) {
		for _, c := range g.charts() {
			id := g.slug + "-" + c.kind
			svg := drawn(t, &g, c.kind)
			bars[id], curves[id] = len(barsOf(svg)), len(svg.all("polyline", "curve"))
		}
	}

	grounds := map[string]string{}
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int{1400, 420} {
			seen := b.look(t, "file://"+name, scheme, width)
			where := fmt.Sprintf("%s, %d wide", scheme, width)
			grounds[scheme] = seen.Background
			if seen.Scheme != scheme || seen.Ink == seen.Background {
				t.Errorf("%s: the page is %s, %s on %s", where, seen.Scheme, seen.Ink, seen.Background)
			}
			if seen.Scroll > seen.Width {
				t.Errorf("%s: the page is %v wide", where, seen.Scroll)
			}
			if len(seen.Charts) != len(bars) {
				t.Errorf("%s: %d charts, want %d", where, len(seen.Charts), len(bars))
			}
			for _, c := range seen.Charts {
				id := strings.TrimSuffix(strings.Fields(c.ID)[0], "-t")
				if !c.Visible || c.Width < 300 || c.Height < 80 || c.Left < 0 || c.Left+c.Width > float64(width) {
					t.Errorf("%s: %s can't be seen: %+v", where, id, c)
				}
				if c.Bars != bars[id] || c.Curves != curves[id] || c.Bars+c.Curves < 7 {
					t.Errorf("%s: %s shows %d bars and %d curves, want %d and %d", where, id, c.Bars, c.Curves, bars[id], curves[id])
				}
				// A path without pipes has bars of no length, but no chart shows pipes.
				if c.Thin > 0 || c.Pale > 0 {
					t.Errorf("%s: %s has %d bars without extent and %d pale ones", where, id, c.Thin, c.Pale)
				}
				if len(c.Cut) > 0 || len(c.Overlap) > 0 {
					t.Errorf("%s: %s: text cut off %q, overlapping %q", where, id, c.Cut, c.Overlap)
				}
			}
		}
	}
	if grounds["light"] == grounds["dark"] {
		t.Errorf("light and dark have the same background, %s", grounds["light"])
	}
	if !slices.Equal(b.requested, slices.Repeat([]string{"file://" + name}, 4)) {
		t.Errorf("the page asked for more than itself: %q", b.requested)
	}
	if len(b.complaints) > 0 {
		t.Errorf("the browser complains: %q", b.complaints)
	}
}

// browser is a headless Chromium that is spoken to through a pair of pipes,
// one JSON message after another, each ended by a zero byte (the protocol of
// --remote-debugging-pipe).
type browser struct {
	to         *os.File
	from       *bufio.Reader
	id         int
	session    string
	requested  []string
	complaints []string
}

// browserTime bounds all that the browser does: a start takes some seconds on a
// busy machine.
const browserTime = 90 * time.Second

// startBrowser skips the test without a browser, unless SPLICED_REQUIRE asks
// for the peers, to which it belongs.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		if slices.Contains(strings.Split(os.Getenv("SPLICED_REQUIRE"), ","), "peers") {
			t.Fatal("SPLICED_REQUIRE names peers, but there is no chromium")
		}
		t.Skip("needs chromium")
	}

	inRead, inWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), browserTime)
	cmd := exec.CommandContext(ctx, program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--disable-breakpad", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
		"--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.ExtraFiles = []*os.File{inRead, outWrite} // descriptors 3 and 4 there
	// A group of their own: the browser has many children, and all must go.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = errors.Join(inRead.Close(), outWrite.Close()) // theirs now
	b := &browser{to: inWrite, from: bufio.NewReaderSize(outRead, 1<<20)}
	t.Cleanup(func() {
		// Closing the pipe ends it; what is left of the group is ended.
		_ = inWrite.Close()
		_ = cmd.Wait() // its exit status says nothing about the page
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Errorf("end the browser: %v", err)
		}
		_ = outRead.Close()
		cancel()
	})
	if err := outRead.SetReadDeadline(time.Now().Add(browserTime)); err != nil {
		t.Fatal(err)
	}

	var target struct {
		TargetID string `json:"targetId"`
	}
	b.call(t, "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	b.call(t, "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Network", "Log", "Runtime"} {
		b.call(t, domain+".enable", nil, nil)
	}
	return b
}

// look opens the page in a window of that width and returns what it shows.
func (b *browser) look(t *testing.T, url, scheme string, width int) seenPage {
	t.Helper()
	b.call(t, "Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}},
	}, nil)
	b.call(t, "Emulation.setDeviceMetricsOverride", map[string]any{
		"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false,
	}, nil)
	b.call(t, "Page.navigate", map[string]any{"url": url}, nil)
	for b.receive(t).Method != "Page.loadEventFired" {
	}
	var got struct {
		Result struct {
			Value string `json:"value"`
		} `json:"result"`
		ExceptionDetails json.RawMessage `json:"exceptionDetails"`
	}
	b.call(t, "Runtime.evaluate", map[string]any{"expression": lookAtPage, "returnByValue": true}, &got)
	var seen seenPage
	if err := json.Unmarshal([]byte(got.Result.Value), &seen); err != nil {
		t.Fatalf("look at the page: %v: %s", err, got.ExceptionDetails)
	}
	return seen
}

type browserMessage struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// call sends a command and waits for its answer; result may be nil.
func (b *browser) call(t *testing.T, method string, params map[string]any, result any) {
	t.Helper()
	b.id++
	message := map[string]any{"id": b.id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	data, err := json.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.to.Write(append(data, 0)); err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	for {
		m := b.receive(t)
		if m.ID != b.id {
			continue
		}
		if m.Error != nil {
			t.Fatalf("%s: %s", method, m.Error)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				t.Fatalf("%s: %v", method, err)
			}
		}
		return
	}
}

// receive returns the next message, and keeps account of those that tell about
// requests and errors.
func (b *browser) receive(t *testing.T) browserMessage {
	t.Helper()
	data, err := b.from.ReadBytes(0)
	if err != nil {
		t.Fatalf("read from the browser: %v", err)
	}
	var m browserMessage
	if err := json.Unmarshal(data[:len(data)-1], &m); err != nil {
		t.Fatal(err)
	}
	switch m.Method {
	case "Network.requestWillBeSent":
		var p struct {
			Request struct {
				URL string `json:"url"`
			} `json:"request"`
		}
		if err := json.Unmarshal(m.Params, &p); err != nil {
			t.Fatal(err)
		}
		b.requested = append(b.requested, p.Request.URL)
	case "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled":
		b.complaints = append(b.complaints, string(m.Params))
	}
	return m
}
