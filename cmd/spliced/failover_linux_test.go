package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
)

// A breakage is a way in which a server fails, and what makes it well again.
type breakage struct {
	name  string
	spoil func(t *testing.T, b *backend) (mend func() *backend)
}

var breakages = []breakage{
	{"killed", func(t *testing.T, b *backend) func() *backend {
		_ = b.cmd.Process.Kill()
		b.wait()
		return func() *backend { return startBackend(t, b.name, b.addr) }
	}},
	{"frozen", func(t *testing.T, b *backend) func() *backend {
		b.signal(syscall.SIGSTOP)
		return func() *backend { b.signal(syscall.SIGCONT); return b }
	}},
	{"refusing", func(t *testing.T, b *backend) func() *backend {
		b.behave(t, backendRefuse)
		return func() *backend { b.behave(t, backendServe); return b }
	}},
	{"resetting", func(t *testing.T, b *backend) func() *backend {
		b.behave(t, backendReset)
		return func() *backend { b.behave(t, backendServe); return b }
	}},
	{"not accepting", func(t *testing.T, b *backend) func() *backend {
		b.behave(t, backendIgnore)
		empty := fillQueue(t, b.addr)
		return func() *backend { empty(); b.behave(t, backendServe); return b }
	}},
}

// While one of two servers fails, no client meets an error for it in the time of
// connecting, and none in the end: but for those that the server has accepted and
// then reset itself, which are as many as it takes to eject it.
func TestFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const failures = 3
	for _, how := range breakages {
		t.Run(how.name, func(t *testing.T) {
			testnet.Leaks(t)
			one, two := startBackend(t, "one", vacantAddr(t)), startBackend(t, "two", vacantAddr(t))
			health := ""
			if how.name == "frozen" { // whose kernel goes on accepting: only who asks finds out
				health = "health: {interval: 100ms, timeout: 2s, rise: 1, fall: 2, send: health, expect: health}"
			}
			d := runDaemon(t, fmt.Sprintf(`
log: {format: json}
listeners:
  l: {address: 127.0.0.1:0, upstream: u}
upstreams:
  u:
    servers: [%q, %q]
    connect_timeout: 1s
    attempts: 2
    ejection: {failures: %d, time: 1m, early_reset: 30s}
    %s
`, one.addr, two.addr, failures, health))
			addr := d.addr(t, "l")
			names := map[string]int{}
			for range 4 { // both are well
				v := visitBackend(addr, patience)
				if v.err != nil {
					t.Fatal(v.err)
				}
				names[v.name]++
			}
			if names["one"] == 0 || names["two"] == 0 {
				t.Fatalf("servers %v, want both", names)
			}

			var waiting sync.WaitGroup
			mend := how.spoil(t, one)
			resets := 0
			meet := func(n int) {
				t.Helper()
				for range n {
					switch v := visitBackend(addr, 2*patience); {
					case v.err == nil && v.name == "two":
					case how.name == "resetting" && errors.Is(v.err, syscall.ECONNRESET):
						resets++
					default:
						t.Errorf("a client meets server %q after %v: %v", v.name, v.took, v.err)
					}
				}
			}
			if how.name == "frozen" {
				// Those that have it before it is found out wait for it.
				for range 8 {
					waiting.Go(func() {
						if v := visitBackend(addr, 2*patience); v.err != nil {
							t.Errorf("a client meets an error after %v: %v", v.took, v.err)
						}
					})
				}
				d.stderr.await(t, "server down")
				meet(4)
				mend()
				waiting.Wait()
				d.stderr.await(t, "server up")
				for range 4 {
					v := visitBackend(addr, patience)
					if v.err != nil {
						t.Fatal(v.err)
					}
					names[v.name]++
				}
				if names["one"] < 4 {
					t.Errorf("servers %v: the first is not used again", names)
				}
			} else {
				meet(4 * failures)
				ejected := parse(t, d.stderr.await(t, "server ejected"))
				if ejected["server"] != one.addr {
					t.Errorf("ejected: %v, want %s", ejected, one.addr)
				}
				if resets > failures {
					t.Errorf("%d clients are reset, want %d at most", resets, failures)
				}
				mend()
			}
			d.stop(t)
			if log := d.stderr.all(); strings.Contains(log, "no target reached") {
				t.Error("a client has reached no server")
			}
		})
	}
}
