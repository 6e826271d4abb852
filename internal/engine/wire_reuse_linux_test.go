package engine_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A client that was closed by its server may use its port again at once, while the
// entries of the connection before still linger: the new connection is one like any
// other, and is not disturbed when the old entries go.
func TestWireSameAddresses(t *testing.T) {
	c := wireChain(t)
	server := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
		var b [64]byte
		for b[63] == 0 { // until it is told to end
			if _, err := io.ReadFull(conn, b[:]); err != nil {
				return
			}
			if _, err := conn.Write(b[:]); err != nil {
				return
			}
		}
	})
	r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire)})
	var local net.Addr
	var total int64
	for i := range 3 {
		var conn *net.TCPConn
		err := c.A.Do(func() error {
			ctx, cancel := context.WithTimeout(t.Context(), wirePatience)
			defer cancel()
			n, err := (&net.Dialer{LocalAddr: local}).DialContext(ctx, "tcp", r.addr)
			if err == nil {
				conn = n.(*net.TCPConn)
			}
			return err
		})
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(wirePatience))
		local = conn.LocalAddr()
		total = pingUntilWire(t, r, conn)
		if i == 1 { // outlives what has lingered of the first
			for began := time.Now(); time.Since(began) < 2*time.Second; time.Sleep(50 * time.Millisecond) {
				ping(t, conn, 0)
				total += 64
			}
		}
		ping(t, conn, 1)
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("connection %d: %v, want the end", i, err)
		}
		conn.Close()
		res := r.result(t)
		wantEOF(t, res, total+64, total+64)
		if res.Engine != "wire" {
			t.Fatalf("connection %d: %+v", i, res)
		}
	}
}

// ping has 64 bytes echoed, of which the last is end.
func ping(t *testing.T, c *net.TCPConn, end byte) {
	t.Helper()
	var b [64]byte
	b[63] = end
	if _, err := c.Write(b[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatal(err)
	}
}
