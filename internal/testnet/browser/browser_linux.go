// Package browser shows pages to a headless Chromium, for tests: what is really
// painted, what a click does, and what the browser complains of.
package browser

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// TB is what a browser needs of a testing.TB.
type TB interface {
	testnet.TB
	TempDir() string
}

// A Browser is a Chromium that is spoken to through a pair of pipes, one JSON message
// after another, each ended by a zero byte (the protocol of
// --remote-debugging-pipe). It shows one page.
type Browser struct {
	// Requested are the addresses that pages have asked for so far.
	Requested []string
	// Complaints are errors and warnings that the browser has found and exceptions
	// of scripts, and whatever they have written to the console.
	Complaints []string

	t       TB
	to      *os.File
	from    *bufio.Reader
	id      int
	session string
	loaded  int // pages so far
}

// Time bounds all that a browser does: its start takes some seconds on a busy
// machine.
const Time = 90 * time.Second

// patience bounds what is waited for in a page.
const patience = 45 * time.Second

// Start starts a browser that ends with the test, which is skipped without one: see
// [testnet.Need].
func Start(t TB) *Browser {
	t.Helper()
	testnet.Need(t, "chromium")
	inRead, inWrite, err := os.Pipe()
	if err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		_ = errors.Join(inRead.Close(), inWrite.Close())
		t.Fatalf("start the browser: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Time)
	cmd := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--disable-breakpad", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
		"--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.ExtraFiles = []*os.File{inRead, outWrite} // descriptors 3 and 4 there
	// A group of their own: the browser has many children, and all must go.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Start()
	_ = errors.Join(inRead.Close(), outWrite.Close()) // theirs now
	if err != nil {
		cancel()
		_ = errors.Join(inWrite.Close(), outRead.Close())
		t.Fatalf("start the browser: %v", err)
	}
	b := &Browser{t: t, to: inWrite, from: bufio.NewReaderSize(outRead, 1<<20)}
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
	if err := outRead.SetReadDeadline(time.Now().Add(Time)); err != nil {
		t.Fatalf("start the browser: %v", err)
	}

	var target struct {
		TargetID string `json:"targetId"`
	}
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		SessionID string `json:"sessionId"`
	}
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Network", "Log", "Runtime"} {
		b.call(domain+".enable", nil, nil)
	}
	return b
}

// Window sets the width and height of the page and its colour scheme, light or dark.
func (b *Browser) Window(scheme string, width, height int) {
	b.t.Helper()
	b.call("Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}},
	}, nil)
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{
		"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
	}, nil)
}

// Open goes to a page and waits until it is loaded.
func (b *Browser) Open(url string) {
	b.t.Helper()
	loaded := b.loaded
	var gone struct {
		ErrorText string `json:"errorText"`
	}
	b.call("Page.navigate", map[string]any{"url": url}, &gone)
	if gone.ErrorText != "" {
		b.t.Fatalf("open %s: %s", url, gone.ErrorText)
	}
	for b.loaded == loaded {
		b.receive()
	}
}

// Eval evaluates an expression in the page, waits if it is a promise, and reads its
// value unless result is nil.
func (b *Browser) Eval(expression string, result any) {
	b.t.Helper()
	var got struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		ExceptionDetails json.RawMessage `json:"exceptionDetails"`
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &got)
	if got.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, got.ExceptionDetails)
	}
	if result != nil {
		if err := json.Unmarshal(got.Result.Value, result); err != nil {
			b.t.Fatalf("%s: %v", expression, err)
		}
	}
}

// Await waits until a condition holds in the page: it is looked at again whenever
// the document has changed.
func (b *Browser) Await(condition string) {
	b.t.Helper()
	var seen string
	b.Eval(fmt.Sprintf(`new Promise((done) => {
  const holds = () => { try { return %s } catch { return false } };
  const end = (word) => { observer.disconnect(); clearTimeout(timer); done(word) };
  const look = () => { if (holds()) end('') };
  const observer = new MutationObserver(look);
  const timer = setTimeout(() => end(document.body.innerText || 'an empty page'), %d);
  observer.observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
  look();
})`, condition, patience.Milliseconds()), &seen)
	if seen != "" {
		b.t.Fatalf("never was: %s\nThe page shows:\n%s", condition, seen)
	}
}

// Picture writes what the window shows, as PNG.
func (b *Browser) Picture(name string) {
	b.t.Helper()
	var shot struct {
		Data string `json:"data"`
	}
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	data, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(name, data, 0o644) //nolint:gosec // a picture for everybody
	}
	if err != nil {
		b.t.Fatalf("picture: %v", err)
	}
}

type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// call sends a command and waits for its answer; result may be nil.
func (b *Browser) call(method string, params map[string]any, result any) {
	b.t.Helper()
	b.id++
	m := map[string]any{"id": b.id, "method": method}
	if params != nil {
		m["params"] = params
	}
	if b.session != "" {
		m["sessionId"] = b.session
	}
	data, err := json.Marshal(m)
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	if _, err := b.to.Write(append(data, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		m := b.receive()
		if m.ID != b.id {
			continue
		}
		if m.Error != nil {
			b.t.Fatalf("%s: %s", method, m.Error)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				b.t.Fatalf("%s: %v", method, err)
			}
		}
		return
	}
}

// receive returns the next message, and keeps account of those that tell about
// pages, requests and errors.
func (b *Browser) receive() (m message) {
	b.t.Helper()
	data, err := b.from.ReadBytes(0)
	if err != nil {
		b.t.Fatalf("read from the browser: %v", err)
	}
	if err := json.Unmarshal(data[:len(data)-1], &m); err != nil {
		b.t.Fatalf("read from the browser: %v", err)
	}
	var p struct {
		Request struct {
			URL string `json:"url"`
		} `json:"request"`
		Entry struct {
			Level string `json:"level"`
		} `json:"entry"`
	}
	kinds := []string{"Network.requestWillBeSent", "Log.entryAdded"}
	if slices.Contains(kinds, m.Method) {
		if err := json.Unmarshal(m.Params, &p); err != nil {
			b.t.Fatalf("%s: %v", m.Method, err)
		}
	}
	switch m.Method {
	case "Page.loadEventFired":
		b.loaded++
	case "Network.requestWillBeSent":
		b.Requested = append(b.Requested, p.Request.URL)
	case "Log.entryAdded":
		if p.Entry.Level == "warning" || p.Entry.Level == "error" {
			b.Complaints = append(b.Complaints, string(m.Params))
		}
	case "Runtime.exceptionThrown", "Runtime.consoleAPICalled":
		b.Complaints = append(b.Complaints, string(m.Params))
	}
	return m
}
