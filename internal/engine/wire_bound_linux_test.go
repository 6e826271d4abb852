package engine_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// bound binds a socket to an interface; an empty name is none.
func bound(link string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		if link == "" {
			return nil
		}
		cerr := c.Control(func(fd uintptr) { err = syscall.BindToDevice(int(fd), link) })
		return errors.Join(err, cerr)
	}
}

// Clients and servers on B itself whose sockets are bound to an interface. One that is not lo is where they are
// looked for, and no packet that comes across by lo would find them: they stay with the sockets.
func TestWireBoundSockets(t *testing.T) {
	const lo = "lo"
	for _, tc := range []struct {
		name           string
		client, server string // what they are bound to
		front, back    string // addresses of the relay and of the server
		wire           bool
	}{
		{"neither", "", "", testnet.AddrBA, testnet.AddrBC, true},
		{"client, lo", lo, "", "127.0.0.1", "127.0.0.1", true},
		{"server, lo", "", lo, "127.0.0.1", "127.0.0.1", true},
		{"client", testnet.LinkBA, "", testnet.AddrBA, "127.0.0.1", false},
		{"client, and the server at another address", testnet.LinkBA, "", testnet.AddrBA, testnet.AddrBC, false},
		{"server", "", testnet.LinkBC, "127.0.0.1", testnet.AddrBC, false},
		{"neither, v6", "", "", testnet.Addr6BA, testnet.Addr6BC, true},
		{"client, lo, v6", lo, "", "::1", "::1", true},
		{"both, v6", testnet.LinkBA, testnet.LinkBC, testnet.Addr6BA, testnet.Addr6BC, false},
		{"server, v6", "", testnet.LinkBC, "::1", testnet.Addr6BC, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			server := serveWith(t, c.B, tc.back, bound(tc.server), echo64)
			r := startRelay(t, c.B, relaySpec{Listen: net.JoinHostPort(tc.front, "0"), Target: server, Kind: uint8(engine.Wire)})
			conn := dialWith(t, c.B, &net.Dialer{Control: bound(tc.client)}, r, tc.front)
			_ = conn.SetDeadline(time.Now().Add(wirePatience))
			n := int64(0)
			ping := func() {
				exchange(t, conn, make([]byte, 64))
				n += 64
			}
			if tc.wire {
				n = pingUntilWire(t, r, conn)
			} else {
				within(t, wirePatience, "refused", func() bool { ping(); return r.stats(t).Refused != "no-bytes" })
			}
			for range 100 {
				ping()
			}
			conn.Close()
			res := r.result(t)
			wantEOF(t, res, n, n)
			if wired := res.Engine == "wire"; wired != tc.wire || !wired && res.Refused != "wire-own-route" {
				t.Errorf("%+v, want wire: %v, else refused for wire-own-route", res, tc.wire)
			}
		})
	}
}
