package engine_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// dialWith dials a relay from a namespace, by an address of B's if one is named.
func dialWith(t *testing.T, ns *testnet.Namespace, d *net.Dialer, r *relay, addr string) *net.TCPConn {
	t.Helper()
	_, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wirePatience)
	defer cancel()
	var c net.Conn
	err = ns.Do(func() (err error) {
		c, err = d.DialContext(ctx, "tcp", net.JoinHostPort(addr, port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	return c.(*net.TCPConn)
}

// A client that speaks MPTCP is refused by the program, and served by the sockets.
func TestWireMPTCP(t *testing.T) {
	testnet.Need(t, "mptcp")
	c := wireChain(t)
	const size = 8 << 20
	server := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
		h := sha256.New()
		_, _ = io.Copy(h, conn)
		_, _ = conn.Write(h.Sum(nil))
	})
	r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire), MPTCP: true})
	var d net.Dialer
	d.SetMultipathTCP(true)
	conn := dialWith(t, c.A, &d, r, testnet.AddrBA)
	if used, err := conn.MultipathTCP(); err != nil || !used {
		t.Fatalf("MPTCP %v, %v", used, err)
	}
	if _, err := io.CopyN(conn, rand.NewChaCha8([32]byte{1}), size); err != nil {
		t.Fatal(err)
	}
	_ = conn.CloseWrite()
	sum, err := io.ReadAll(conn)
	if err != nil || [32]byte(sum) != hashOf(1, size) {
		t.Errorf("bytes differ, %v", err)
	}
	res := r.result(t)
	wantEOF(t, res, size, 32)
	if res.Refused != "wire-not-tcp" || res.Wire.Switched || res.Engine == "wire" {
		t.Errorf("%+v, want the sockets, refused for wire-not-tcp", res)
	}
}

// A client whose packets may go no further than to B is refused by the program, and served by the
// sockets.
func TestWireLastHop(t *testing.T) {
	c := wireChain(t)
	server := serve(t, c.C, testnet.AddrC, echo64)
	r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire)})
	neighbour := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TTL, 1) })
		return errors.Join(err, cerr)
	}}
	conn := dialWith(t, c.A, &neighbour, r, testnet.AddrBA)
	var b [64]byte
	n := int64(0)
	for end := time.Now().Add(wirePatience); n == 0 || r.stats(t).Refused == "no-bytes"; n += 64 {
		if time.Now().After(end) {
			t.Fatalf("not refused: %+v", r.stats(t))
		}
		if _, err := conn.Write(b[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
	res := r.result(t)
	wantEOF(t, res, n, n)
	if res.Refused != "wire-last-hop" || res.Wire.Switched || res.Engine == "wire" {
		t.Errorf("%+v, want the sockets, refused for wire-last-hop", res)
	}
}

// A side that only sends for longer than the limit is cut, as by the sockets.
func TestWireHalfClose(t *testing.T) {
	c := wireChain(t)
	done := make(chan struct{})
	defer close(done)
	server := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
		echo64(conn)
		<-done // silent, and open
	})
	r := startRelay(t, c.B, relaySpec{
		Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire),
		Limits: engine.Limits{HalfClose: 500 * time.Millisecond},
	})
	conn := dialRelay(t, c.A, r)
	n := pingUntilWire(t, r, conn)
	_ = conn.CloseWrite()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v, want a reset", err)
	}
	res := r.result(t)
	if res.AToB != n || res.BToA != n || res.ReasonA != "eof" || res.ReasonB != "half-close-timeout" || res.Engine != "wire" ||
		!strings.Contains(res.Err, "half-close timeout") {
		t.Errorf("%+v, want %d bytes, half-close-timeout", res, n)
	}
}

// A client whose link is down in mid-stream is ended by the idle limit, although
// the server never stops to send again. Others go on.
func TestWirePeerVanishes(t *testing.T) {
	c := wireChain(t)
	server := serve(t, c.C, testnet.AddrC, echoThenStream)
	r := startRelay(t, c.B, relaySpec{
		Listen: "0.0.0.0:0", Target: server, Kind: uint8(engine.Wire), Limits: engine.Limits{Idle: 5 * time.Second},
	})
	vanishing := dialWith(t, c.A, new(net.Dialer), r, testnet.AddrBA)
	n := pingUntilWire(t, r, vanishing)
	staying := dialWith(t, c.C, new(net.Dialer), r, testnet.AddrBC)
	var b [64]byte
	stayed := int64(0)
	ping := func() {
		exchange(t, staying, b[:])
		stayed += 64
	}
	for end := time.Now().Add(wirePatience); r.spliced(t) < 2; {
		if time.Now().After(end) {
			t.Fatal("the second was not handed over")
		}
		exchange(t, vanishing, make([]byte, 64))
		n += 64
		ping()
	}
	if _, err := vanishing.Write([]byte(strings.Repeat("s", 64))); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, vanishing, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := c.A.Down(testnet.LinkAB); err != nil {
		t.Fatal(err)
	}
	var res relayResult
	for end := time.Now().Add(2 * wirePatience); res.Client == ""; {
		select {
		case res = <-r.results:
		case <-time.After(time.Millisecond):
			ping()
		}
		if time.Now().After(end) {
			t.Fatal("the idle limit has not ended it")
		}
	}
	if res.Client != vanishing.LocalAddr().String() || res.AToB != n+64 || res.BToA < n+1<<20 ||
		res.ReasonA != "idle" || res.ReasonB != "idle" || res.Engine != "wire" {
		t.Errorf("%+v, want %s and %d bytes, idle", res, vanishing.LocalAddr(), n+64)
	}
	for range 100 {
		ping()
	}
	staying.Close()
	res = r.result(t)
	wantEOF(t, res, stayed, stayed)
	if res.Engine != "wire" || res.Wire.Errors != [2]uint64{} {
		t.Errorf("%+v", res)
	}
}
