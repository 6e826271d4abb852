package engine_test

import (
	"io"
	"net"
	"strings"
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

// The kernel does not know of the local ports of spliced flows. New connections to
// the same server keep off them, and the server sees no attempt that fails: it is
// said hello by nobody but clients.
func TestWirePorts(t *testing.T) {
	for _, tc := range []struct{ name, front, back string }{
		{"v4", testnet.AddrBA, testnet.AddrC},
		{"v6", testnet.Addr6BA, testnet.Addr6C},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			const flows, short = 16, 60
			if err := c.B.Sysctl("net.ipv4.ip_local_port_range", "40000 40031"); err != nil {
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
			r := startRelay(t, c.B, relaySpec{Listen: net.JoinHostPort(tc.front, "0"), Target: server, Kind: uint8(engine.Wire)})
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
			for range short {
				conn := dialRelay(t, c.A, r)
				b := make([]byte, 64)
				b[0] = 1
				exchange(t, conn, b)
				if _, err := conn.Read(b); err != io.EOF {
					t.Errorf("at the end: %v", err)
				}
				conn.Close()
				if res := r.result(t); res.Failed != "" || res.ReasonA != "eof" || res.ReasonB != "eof" {
					t.Errorf("%+v", res)
				}
			}
			ping()
			if n := accepted.Load(); n != flows+short {
				t.Errorf("the server has seen %d connections, want %d", n, flows+short)
			}
		})
	}
}
