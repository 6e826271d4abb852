package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// signs has a socket sign what it sends to an address, and want that of what comes from there (TCP MD5,
// RFC 2385).
func signs(peer string) func(network, address string, c syscall.RawConn) error {
	const md5sig = 14 // TCP_MD5SIG
	addr := netip.MustParseAddr(peer)
	b := make([]byte, 128+8+80) // struct tcp_md5sig
	if addr.Is4() {
		binary.NativeEndian.PutUint16(b, syscall.AF_INET)
		copy(b[4:], addr.AsSlice())
	} else {
		binary.NativeEndian.PutUint16(b, syscall.AF_INET6)
		copy(b[8:], addr.AsSlice())
	}
	binary.NativeEndian.PutUint16(b[130:], uint16(copy(b[136:], "secret")))
	return func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, md5sig, string(b)) })
		return errors.Join(err, cerr)
	}
}

// A client that signs its segments is refused by the program, which could not sign what it has rewritten, and
// served by the sockets.
func TestWireSigned(t *testing.T) {
	for _, tc := range []struct{ name, a, b, c string }{
		{"v4", testnet.AddrA, testnet.AddrBA, testnet.AddrC},
		{"v6", testnet.Addr6A, testnet.Addr6BA, testnet.Addr6C},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			// Linux has no room for timestamps beside signatures: the other side must be alike.
			if err := c.C.Sysctl("net.ipv4.tcp_timestamps", "0"); err != nil {
				t.Fatal(err)
			}
			server := serve(t, c.C, tc.c, echo64)
			r := startRelay(t, c.B, relaySpec{Listen: net.JoinHostPort(tc.b, "0"), Target: server, Kind: uint8(engine.Wire), SignedBy: tc.a})
			conn := dialWith(t, c.A, &net.Dialer{Control: signs(tc.b)}, r, tc.b)
			n := int64(0)
			for end := time.Now().Add(wirePatience); n == 0 || r.stats(t).Refused == "no-bytes"; n += 64 {
				if time.Now().After(end) {
					t.Fatalf("not refused: %+v", r.stats(t))
				}
				exchange(t, conn, make([]byte, 64))
			}
			exchange(t, conn, make([]byte, 64))
			conn.Close()
			res := r.result(t)
			wantEOF(t, res, n+64, n+64)
			if res.Refused != "wire-tcp-options" || res.Wire.Switched || res.Engine == "wire" {
				t.Errorf("%+v, want the sockets, refused for wire-tcp-options", res)
			}
		})
	}
}

// listenSpec listens as a relay is told.
func (s *relaySpec) listen() (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(s.MPTCP)
	if s.SignedBy != "" {
		lc.Control = signs(s.SignedBy)
	}
	return lc.Listen(context.Background(), "tcp", s.Listen)
}
