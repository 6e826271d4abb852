package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestWatchCost measures what those cost who watch a daemon with many sessions, and
// prints the table of docs/run.md. Each session carries a byte in ten seconds.
// SPLICED_WATCHED is how many sessions there are, 9,000 as a rule: a process here has
// descriptors for no more. SPLICED_WATCHED_ENGINE carries them, splice if it is not set.
func TestWatchCost(t *testing.T) {
	sessions, err := strconv.Atoi(os.Getenv("SPLICED_WATCHED"))
	if err != nil {
		t.Skip("SPLICED_WATCHED is not a number of sessions: a measurement")
	}
	admin := filepath.Join(t.TempDir(), "admin.sock")
	d := startDaemon(t, commandWithin(t, time.Hour, "run"), fmt.Sprintf(`
admin: unix:%s
listeners:
  open: {address: 127.0.0.1:0, engine: %s, upstream: u}
upstreams:
  u: {servers: %q}
`, admin, cmp.Or(os.Getenv("SPLICED_WATCHED_ENGINE"), "splice"), plainEcho(t)), (*exec.Cmd).Start)
	horde := startHorde(t, hordeSpec{
		Kind: "slow", Target: netip.MustParseAddrPort(d.addr(t, "open")), Source: netip.MustParseAddr("127.0.98.1"), Count: sessions, Rate: 3000,
	})
	horde.stdout.await(t, "there")
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", admin)
		},
	}}
	states := []struct {
		watchers int
		query    string
	}{
		{0, ""},
		{1, "interval=1s"},
		{1, "interval=1s&sessions=250"}, // as the page
		{5, "interval=1s&sessions=250"},
		{5, "interval=100ms&sessions=20"},
	}
	cpu, sent := make([][]float64, len(states)), make([][]float64, len(states))
	for range floodNumber(t, "SPLICED_FLOOD_ROUNDS", 3) {
		for i, s := range states {
			ctx, cancel := context.WithCancel(t.Context())
			var watching sync.WaitGroup
			var got atomic.Int64
			for range s.watchers {
				watching.Go(func() {
					r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v1/watch?"+s.query, nil)
					if err != nil {
						t.Error(err)
						return
					}
					a, err := client.Do(r)
					if err != nil {
						t.Error(err)
						return
					}
					defer a.Body.Close()
					b := make([]byte, 1<<16)
					for err == nil {
						var n int
						n, err = a.Body.Read(b)
						got.Add(int64(n))
					}
					if err == io.EOF {
						t.Error("the daemon has ended what is watched")
					}
				})
			}
			time.Sleep(500 * time.Millisecond)
			begun, before := cpuOf(t, d.cmd.Process.Pid), got.Load()
			time.Sleep(4 * time.Second)
			cpu[i] = append(cpu[i], cpuOf(t, d.cmd.Process.Pid).since(begun))
			sent[i] = append(sent[i], float64(got.Load()-before)/1e3/4)
			cancel()
			watching.Wait()
		}
	}
	var table strings.Builder
	for i, s := range states {
		fmt.Fprintf(&table, "| %d | %s | %s | %s |\n", s.watchers, s.query, spread(cpu[i], 3), spread(sent[i], 1))
	}
	t.Logf("%d of %d sessions are left; resident %.1f MB\n| watchers | | CPU, s/s | kB/s |\n|---|---|---|---|\n%s",
		horde.disperse(t), sessions, residentMB(t, d.cmd.Process.Pid), &table)
}
