package engine_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// What an old kernel, or one that refuses, answers to bpf(2) is what seccomp(2) has it answer
// here. The sockets carry what the program can't, with a reason, and more than one.
func TestWireRefusedByTheKernel(t *testing.T) {
	c := wireChain(t)
	server := serve(t, c.C, testnet.AddrC, echo64)
	auto := engine.WirePolicy{Upgrade: true, AfterBytes: 1}
	for _, tc := range []struct {
		name, forbid string // see engine.Forbid
		kind         engine.Kind
		want         string
	}{
		{"no bpf", "all 38", engine.Auto, "wire-denied"},
		{"no privilege", "all 1", engine.Auto, "wire-denied"},
		{"a map of no type that is known", "0 22", engine.Auto, "wire-denied"},
		{"a program that is refused", "5 22", engine.Auto, "wire-denied"},
		{"no links of tcx, before Linux 6.6", "28 22", engine.Auto, "wire-denied"},
		{"the same, asked for by name", "28 22", engine.Wire, "wire-denied"},
		{"no memory for an entry", "2 12", engine.Wire, "wire-refused-by-kernel"},
		{"a full table", "2 7", engine.Wire, "wire-table-full"},
		{"a switch that is refused", "10 22", engine.Wire, "wire-refused-by-kernel"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := startRelay(t, c.B, relaySpec{
				Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(tc.kind), Policy: auto, Forbid: tc.forbid,
			})
			for range 2 {
				conn := dialRelay(t, c.A, r)
				n := int64(0)
				within(t, wirePatience, "refused", func() bool {
					exchange(t, conn, make([]byte, 64))
					n += 64
					return r.stats(t).Refused == tc.want
				})
				exchange(t, conn, make([]byte, 64))
				_ = conn.CloseWrite()
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					t.Error("bytes behind the end")
				}
				res := r.result(t)
				wantEOF(t, res, n+64, n+64)
				if res.Refused != tc.want || res.Engine == "wire" || res.Wire.Switched {
					t.Errorf("%+v, want the sockets, and %s", res, tc.want)
				}
			}
			r.end()
		})
	}
}

// A route that leads nowhere when the hand-over is due, and one side of another family than the
// other: the sockets go on, and wait for the next route.
func TestWireRefusedForItsWay(t *testing.T) {
	c := wireChain(t)
	const server, size = "10.85.0.9", 2 << 20 // of C's pool; more than what the hand-over begins with
	route := func(t *testing.T, what string) {
		t.Helper()
		if err := c.B.Run(t.Context(), "", "ip", "route", what, "blackhole", server+"/32"); err != nil {
			t.Fatal(err)
		}
	}
	nothing := func(*testing.T, string) {}
	for _, tc := range []struct {
		name, front, back, want string
		route                   func(*testing.T, string)
	}{
		{"no route", testnet.AddrBA, server, "wire-no-route", route},
		{"two families", testnet.Addr6BA, server, "wire-address-families", nothing},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr := serve(t, c.C, tc.back, func(conn *net.TCPConn) {
				var b [64]byte
				if _, err := io.ReadFull(conn, b[:]); err != nil {
					return
				}
				_, _ = conn.Write(b[:])
				h := sha256.New()
				_, _ = io.Copy(h, conn)
				_, _ = conn.Write(h.Sum(nil))
			})
			r := startRelay(t, c.B, relaySpec{
				Listen: net.JoinHostPort(tc.front, "0"), Target: addr, Kind: uint8(engine.Auto),
				Policy: engine.WirePolicy{Upgrade: true, AfterBytes: 16 << 10, AfterAge: time.Hour},
			})
			conn := dialRelay(t, c.A, r)
			exchange(t, conn, make([]byte, 64))
			tc.route(t, "add")
			mend := sync.OnceFunc(func() { tc.route(t, "del") })
			defer mend()
			sent := make(chan error, 1)
			go func() {
				_, err := io.CopyN(conn, rand.NewChaCha8([32]byte{1}), size)
				sent <- err
			}()
			within(t, wirePatience, "refused", func() bool { return r.stats(t).Refused == tc.want })
			mend()
			if err := errors.Join(<-sent, conn.CloseWrite()); err != nil {
				t.Fatal(err)
			}
			if sum, err := io.ReadAll(conn); err != nil || [32]byte(sum) != hashOf(1, size) {
				t.Errorf("bytes differ, %v", err)
			}
			res := r.result(t)
			wantEOF(t, res, size+64, 64+32)
			if res.Refused != tc.want || res.Engine == "wire" {
				t.Errorf("%+v, want the sockets, and %s", res, tc.want)
			}
		})
	}
}
