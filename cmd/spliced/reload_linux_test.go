package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/internal/testnet"
)

// usage is what a daemon holds.
type usage struct{ descriptors, goroutines, kilobytes int }

func (d *daemonProcess) usage(t *testing.T, page string) (u usage) {
	t.Helper()
	answer, err := http.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	number := func(text []byte, pattern string) int {
		m := regexp.MustCompile(pattern).FindSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in\n%s", pattern, text)
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return usage{
		descriptors(t, d.cmd.Process.Pid),
		number(text, `(?m)^go_goroutines (\d+)`), number(status, `VmRSS:\s+(\d+) kB`),
	}
}

// Reloads under load, of changes of all kinds and of mistakes: no client notices, and
// nothing is left of them.
//
// SPLICED_RELOADS is their number, 30 by default; with 1000 and more clients stay
// for up to 10 s.
func TestReloadsUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	times, longest, pause := 30, 300*time.Millisecond, 20*time.Millisecond
	if v := os.Getenv("SPLICED_RELOADS"); v != "" {
		var err error
		if times, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
		if times >= 1000 {
			longest, pause = 10*time.Second, 120*time.Millisecond
		}
	}
	testnet.Leaks(t)
	socket := filepath.Join(t.TempDir(), "admin.sock")
	one, two := testnet.Echo(t, "tcp", "127.0.0.1:0"), testnet.Echo(t, "tcp", "127.0.0.1:0")
	text := func(level, listeners, upstream string) string {
		return fmt.Sprintf("log: {level: %s}\nadmin: unix:%s\nmetrics: 127.0.0.1:0\nlisteners:\n  echo: {address: 127.0.0.1:0, upstream: echo, engine: splice}\n%s"+
			"upstreams:\n  echo: {health: {interval: 50ms}, ejection: {off: true}, %s}\n", level, socket, listeners, upstream)
	}
	both := fmt.Sprintf("servers: [\"%s\", \"%s\"]", one, two)
	d := runUpgradable(t, text("info", "", both)) // for as long as it takes
	addr := d.addr(t, "echo")
	page := regexp.MustCompile(`url=(\S+)`).FindStringSubmatch(d.stderr.await(t, "msg=metrics"))[1]
	client := &adminapi.Client{Address: "unix:" + socket}
	kinds := []string{
		text("error", "", both),
		text("error", "", fmt.Sprintf("servers: \"%s\"", two)),
		text("error", "  more: {address: 127.0.0.1:0, upstream: echo}\n", both),
		text("error", "  look: {address: 127.0.0.1:0, routes: {sni: a.example, upstream: echo}}\n", both+", balance: least-connections"),
		text("error", "", fmt.Sprintf("servers: [{address: \"%s\", weight: 3}, \"%s\", \"localhost:1\"], balance: maglev", one, two)),
		text("error", "  taken: {address: \""+one+"\", upstream: echo}\n", both), // refused: in use
		text("error", "  wrong: {address: 127.0.0.1:0, upstream: none}\n", both), // refused: no such upstream
	}
	const refused = 5 // and above
	reload := func(i int) {
		t.Helper()
		d.write(t, kinds[i])
		if err := askReload(t.Context(), client); (err != nil) != (i >= refused) {
			t.Fatalf("reload of kind %d: %v", i, err)
		}
	}
	// What is made once is there now.
	w := startCrowd(t, addr, 0, 16, 100*time.Millisecond)
	for i := range kinds {
		reload(i)
	}
	reload(0)
	w.end()
	before := d.usage(t, page)

	w = startCrowd(t, addr, 2, 16, longest)
	begun := time.Now()
	for i := range times {
		reload(i % len(kinds))
		time.Sleep(rand.N(pause)) // so that they are spread over the clients' lives
	}
	took := time.Since(begun)
	reload(0)
	w.end()
	if w.short.Load() == 0 {
		t.Error("nobody has come and gone")
	}
	var after usage
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		// Checks of servers and the pool of pipes hold some for a moment.
		if after = d.usage(t, page); after.descriptors <= before.descriptors && after.goroutines <= before.goroutines+4 {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("the daemon holds %+v after %d reloads, %+v before: %v", after, times, before, descriptorKinds(t, d.cmd.Process.Pid))
			break
		}
	}
	if grown := after.kilobytes - before.kilobytes; times >= 1000 && grown > 16<<10 {
		t.Errorf("the daemon has grown by %d KiB", grown)
	}
	if log := d.stderr.all(); strings.Contains(log, "no target reached") {
		t.Errorf("a client was not served:\n%s", log)
	}
	t.Logf("%d reloads in %v, %d conversations; before %+v, after %+v", times, took.Round(time.Second), w.short.Load(), before, after)
	d.stop(t)
}
