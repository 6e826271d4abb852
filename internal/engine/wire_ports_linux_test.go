package engine_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// sockets counts the established connections of a namespace.
func sockets(t *testing.T, ns *testnet.Namespace) (n int) {
	t.Helper()
	for _, name := range []string{"tcp", "tcp6"} {
		list, err := ns.ReadProcNet(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(list)) {
			if f := strings.Fields(line); len(f) > 3 && f[3] == "01" {
				n++
			}
		}
	}
	return n
}

// brief is a message to the server of TestWirePorts that ends its connection.
func brief() []byte {
	var b [64]byte
	b[0] = 1
	return b[:]
}

// The kernel does not know of the local ports of spliced flows. New connections to
// the same server keep off them, whatever engine carries them and whichever loops connect at the
// same time, and so can those that the process makes by itself. The server sees no attempt that
// fails: it is said hello by nobody but clients.
func TestWirePorts(t *testing.T) {
	for _, tc := range []struct{ name, front, back string }{
		{"v4", testnet.AddrBA, testnet.AddrC},
		{"v6", testnet.Addr6BA, testnet.Addr6C},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			// Those that are handed over all the same have their ports for a second more: there
			// are enough.
			const flows, clients, each, beside = 32, 6, 16, 16
			if err := c.B.Sysctl("net.ipv4.ip_local_port_range", "40000 40095"); err != nil {
				t.Fatal(err)
			}
			var accepted atomic.Int64
			server := serve(t, c.C, tc.back, func(conn *net.TCPConn) {
				accepted.Add(1)
				// The first byte says whether it is to stay.
				var b [64]byte
				if _, err := io.ReadFull(conn, b[:]); err != nil {
					t.Errorf("a connection without a client: %v", err)
				}
				_, _ = conn.Write(b[:])
				if b[0] == 0 {
					echo64(conn)
				}
			})
			r := startRelay(t, c.B, relaySpec{
				Listen: net.JoinHostPort(tc.front, "0"), Target: server,
				Kind: uint8(engine.Wire), Turn: flows + 1, OtherKind: uint8(engine.Splice),
			})
			var stay []*net.TCPConn
			for range flows {
				stay = append(stay, dialRelay(t, c.A, r))
			}
			ping := func() {
				for _, conn := range stay {
					exchange(t, conn, make([]byte, 64))
				}
			}
			for end := time.Now().Add(wirePatience); sockets(t, c.B) > 0; ping() {
				if time.Now().After(end) {
					t.Fatal("not all were handed over")
				}
			}
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					for range each {
						if err := shortly(c.A, r.addr); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			late := 0 // those that might have been handed over, and were over before
			for range clients * each {
				res := r.result(t)
				if res.Failed != "" || res.ReasonA != "eof" || res.ReasonB != "eof" {
					t.Errorf("%+v", res)
				}
				if res.Refused != "" || res.Wire.Switched {
					late++
				}
			}
			for range beside {
				if _, err := io.WriteString(r.stdin, "dial\n"); err != nil {
					t.Fatal(err)
				}
				if res := r.result(t); res.Failed != "" {
					t.Errorf("beside the relay: %s", res.Failed)
				}
			}
			ping()
			if n := accepted.Load(); n != flows+clients*each+beside {
				t.Errorf("the server has seen %d connections, want %d", n, flows+clients*each+beside)
			}
			if late != clients*each/2 {
				t.Errorf("%d of %d sessions were by the engine wire, want half", late, clients*each)
			}
		})
	}
}

// shortly exchanges one message through a relay.
func shortly(ns *testnet.Namespace, addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), wirePatience)
	defer cancel()
	conn, err := ns.Dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(wirePatience))
	if _, err := conn.Write(brief()); err != nil {
		return err
	}
	if got, err := io.ReadAll(conn); err != nil || len(got) != 64 {
		return fmt.Errorf("%d bytes came back, want 64: %w", len(got), err)
	}
	return nil
}
