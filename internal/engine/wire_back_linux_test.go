package engine_test

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A stopped session gives its connections back, open and usable, and no byte is
// lost: whatever they are doing.
func TestWireStop(t *testing.T) {
	for _, tc := range []struct {
		name string
		addr string
	}{{"v4", testnet.AddrBA}, {"v6", testnet.Addr6BA}} {
		c := wireChain(t)
		target := testnet.AddrC
		if tc.name == "v6" {
			target = testnet.Addr6C
		}
		t.Run(tc.name, func(t *testing.T) {
			server := serve(t, c.C, target, echoThenStream)
			r := startRelay(t, c.B, relaySpec{Listen: net.JoinHostPort(tc.addr, "0"), Target: server, Kind: uint8(engine.Wire)})
			t.Run("at rest", func(t *testing.T) { stopAtRest(t, c, r) })
			t.Run("in a stream", func(t *testing.T) { stopInStream(t, c, r, false) })
			t.Run("half closed", func(t *testing.T) { stopInStream(t, c, r, true) })
			t.Run("with its port taken", func(t *testing.T) { stopMeetsPort(t, c, target, tc.addr) })
		})
	}
}

func (r *relay) stop(t *testing.T, sent int64) (wired relayResult) {
	t.Helper()
	if _, err := io.WriteString(r.stdin, "stop\n"); err != nil {
		t.Fatal(err)
	}
	res := r.result(t)
	if res.Engine != "wire" || res.ReasonB != "stopped" || res.Err != "" || sent >= 0 && res.AToB != sent {
		t.Errorf("%+v, want %d bytes, stopped", res, sent)
	}
	if back := r.result(t); back.Flows != 1 {
		t.Fatalf("given back: %+v, after %+v", back, res)
	}
	return res
}

func stopAtRest(t *testing.T, c *testnet.Chain, r *relay) {
	conn := dialRelay(t, c.A, r)
	n := pingUntilWire(t, r, conn)
	res := r.stop(t, n)
	if res.BToA != n {
		t.Errorf("%+v, want %d bytes", res, n)
	}
	var b [64]byte
	for range 100 {
		exchange(t, conn, b[:])
	}
	conn.Close()
	if res := r.result(t); res.AToB != 6400 || res.BToA != 6400 {
		t.Errorf("by hand: %+v", res)
	}
}

// The kernel may give the local port of a flow, of which it does not know, to another
// socket that connects to the same server. While that has it the flow can't get its
// socket back, and waits for it.
func stopMeetsPort(t *testing.T, c *testnet.Chain, target, front string) {
	ways := make(chan [2]netip.AddrPort, 1)
	server := serve(t, c.C, target, func(conn *net.TCPConn) {
		ways <- [2]netip.AddrPort{conn.RemoteAddr().(*net.TCPAddr).AddrPort(), conn.LocalAddr().(*net.TCPAddr).AddrPort()}
		echo64(conn)
	})
	r := startRelay(t, c.B, relaySpec{Listen: net.JoinHostPort(front, "0"), Target: server, Kind: uint8(engine.Wire)})
	conn := dialRelay(t, c.A, r)
	n := pingUntilWire(t, r, conn)
	for end := time.Now().Add(wirePatience); sockets(t, c.B) > 0; n += 64 {
		if time.Now().After(end) {
			t.Fatal("the relay still has a socket")
		}
		exchange(t, conn, make([]byte, 64))
	}
	way := <-ways
	intruder := -1
	err := c.B.Do(func() (err error) {
		family := syscall.AF_INET
		if way[0].Addr().Unmap().Is6() {
			family = syscall.AF_INET6
		}
		if intruder, err = syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = syscall.Bind(intruder, sockaddr(way[0])); err != nil {
			return err
		}
		if err = syscall.Connect(intruder, sockaddr(way[1])); err == syscall.EINPROGRESS {
			err = nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Long enough for the sockets to be made: if they are not by then, this shows
	// nothing.
	left := time.AfterFunc(500*time.Millisecond, func() { _ = syscall.Close(intruder) })
	defer left.Stop()
	if res := r.stop(t, n); res.BToA != n {
		t.Errorf("%+v, want %d bytes", res, n)
	}
	var b [64]byte
	for range 10 {
		exchange(t, conn, b[:])
	}
	conn.Close()
	if res := r.result(t); res.AToB != 640 || res.BToA != 640 {
		t.Errorf("by hand: %+v", res)
	}
}

func sockaddr(a netip.AddrPort) syscall.Sockaddr {
	if a.Addr().Unmap().Is4() {
		return &syscall.SockaddrInet4{Addr: a.Addr().Unmap().As4(), Port: int(a.Port())}
	}
	return &syscall.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func exchange(t *testing.T, conn *net.TCPConn, b []byte) {
	t.Helper()
	_, err := conn.Write(b)
	if err == nil {
		_, err = io.ReadFull(conn, b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Streams in both directions, or in one when the other has ended.
func stopInStream(t *testing.T, c *testnet.Chain, r *relay, half bool) {
	conn := dialRelay(t, c.A, r)
	pingUntilWire(t, r, conn)
	const size = 64 << 20 // each way: more than all buffers, so that it is not over soon
	up := int64(size)
	if half {
		up = 1 << 20
	}
	halfway, goOn := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer conn.CloseWrite()
		_, _ = conn.Write([]byte("stream of 64 MiB, please; what comes from now on is hashed......")[:64])
		_, _ = io.CopyN(conn, rand.NewChaCha8([32]byte{1}), up)
	})
	got := sha256.New()
	var sum [32]byte
	wg.Go(func() {
		_, _ = io.CopyN(got, conn, size/2)
		close(halfway)
		<-goOn
		_, _ = io.CopyN(got, conn, size/2)
		_, _ = io.ReadFull(conn, sum[:])
	})
	<-halfway
	if half {
		waitForEOF(t, r)
	}
	if half {
		// With the reader at a stop: else the rest could be through by now.
		time.AfterFunc(50*time.Millisecond, func() { close(goOn) })
	} else {
		close(goOn)
	}
	res := r.stop(t, -1)
	wg.Wait()
	conn.Close()
	rest := r.result(t)
	if [32]byte(got.Sum(nil)) != hashOf(2, size) || sum != hashOf(1, up) {
		t.Errorf("bytes differ: %+v, then %+v", res, rest)
	}
	if half && res.ReasonA != "eof" {
		t.Errorf("%+v", res)
	}
	t.Logf("%d and %d bytes spliced, %d and %d by hand", res.AToB, res.BToA, rest.AToB, rest.BToA)
}

func hashOf(seed byte, n int64) [32]byte {
	h := sha256.New()
	_, _ = io.CopyN(h, rand.NewChaCha8([32]byte{seed}), n)
	return [32]byte(h.Sum(nil))
}

// echoThenStream answers messages of 64 bytes until one begins with s; then it
// streams, and after the other's FIN sends the hash of what it got.
func echoThenStream(conn *net.TCPConn) {
	var b [64]byte
	for b[0] != 's' {
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			return
		}
		if b[0] == 's' {
			break
		}
		if _, err := conn.Write(b[:]); err != nil {
			return
		}
	}
	var wg sync.WaitGroup
	h := sha256.New()
	wg.Go(func() { _, _ = io.Copy(h, conn) })
	_, _ = io.CopyN(conn, rand.NewChaCha8([32]byte{2}), 64<<20)
	wg.Wait()
	_, _ = conn.Write(h.Sum(nil))
}

func waitForEOF(t *testing.T, r *relay) {
	for end := time.Now().Add(wirePatience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if st := r.stats(t); st.ReasonA == "eof" {
			return
		}
	}
	t.Error("the FIN has not come through")
}

// Exactly as many bytes as the limit says cross, most of them by the program;
// what comes after them stays with its sender. A relay that adopts the flow keeps
// its limit, also one that is further away than the program can be told of.
func TestWireMaxBytes(t *testing.T) {
	c := wireChain(t)
	const beyond = 3<<20 + 17
	for _, tc := range []struct {
		name    string
		limit   int64
		adopted bool
	}{
		{"odd", 48<<20 + 12345, false},
		{"at a segment's end", 64 << 20, false},
		{"adopted", 48<<20 + 12345, true},
		{"adopted, far away", 1<<30 + 48<<20 + 5, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if testing.Short() && tc.limit > 1<<30 {
				t.Skip("carries more than 1 GiB")
			}
			server := serve(t, c.C, testnet.AddrC, echoThenStream)
			spec := relaySpec{
				Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire),
				Limits: engine.Limits{MaxAToB: tc.limit},
			}
			if tc.adopted {
				spec.Policy = engine.WirePolicy{Instance: "limit", Root: testnet.BPFFS(t)}
			}
			r := startRelay(t, c.B, spec)
			if tc.adopted && r.adopted(t) != 0 {
				t.Fatal("adopted a flow of nobody")
			}
			conn := dialRelay(t, c.A, r)
			n := pingUntilWire(t, r, conn)
			if tc.adopted {
				r.kill(t)
				spec.Limits = engine.Limits{} // of those to come
				r = startRelay(t, c.B, spec)
				if n := r.adopted(t); n != 1 {
					t.Fatalf("adopted %d flows, want 1", n)
				}
			}
			total := tc.limit - n - 64 + beyond
			var wg sync.WaitGroup
			wg.Go(func() {
				var b [64]byte
				b[0] = 's'
				_, _ = conn.Write(b[:])
				_, _ = io.CopyN(conn, rand.NewChaCha8([32]byte{1}), total)
				_ = conn.CloseWrite()
			})
			if _, err := io.CopyN(io.Discard, conn, 64<<20); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(6 * wirePatience); ; time.Sleep(time.Millisecond) {
				st := r.stats(t)
				if st.ReasonA == "max" {
					break
				}
				if st.ReasonA != "running" || time.Now().After(end) {
					t.Fatalf("%+v, want max", st)
				}
			}
			if _, err := io.WriteString(r.stdin, "stop\n"); err != nil {
				t.Fatal(err)
			}
			res := r.result(t)
			if res.AToB != tc.limit || res.ReasonA != "max" || res.ReasonB != "stopped" || res.Err != "" || res.Refused != "wire-max-bytes" {
				t.Errorf("%+v, want %d bytes, max", res, tc.limit)
			}
			if res.Wire.Delivered[0] < tc.limit*9/10-n || !res.Wire.Returned {
				t.Errorf("the program has carried %d bytes: %+v", res.Wire.Delivered[0], res)
			}
			if back := r.result(t); back.Flows != 1 {
				t.Fatalf("given back: %+v", back)
			}
			var sum [32]byte
			if _, err := io.ReadFull(conn, sum[:]); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			if sum != hashOf(1, total) {
				t.Error("bytes differ")
			}
			conn.Close()
			if rest := r.result(t); rest.AToB != beyond {
				t.Errorf("by hand: %+v, want %d bytes", rest, beyond)
			}
		})
	}
}

// A limit that is near is not worth a hand-over.
func TestWireMaxBytesNear(t *testing.T) {
	c := wireChain(t)
	server := serve(t, c.C, testnet.AddrC, echo64)
	r := startRelay(t, c.B, relaySpec{
		Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire), Limits: engine.Limits{MaxBToA: 1 << 20},
	})
	conn := dialRelay(t, c.A, r)
	var b [64]byte
	for range 100 {
		exchange(t, conn, b[:])
	}
	conn.Close()
	if res := r.result(t); res.Refused != "wire-max-bytes" || res.Wire.Switched || res.AToB != 6400 {
		t.Errorf("%+v", res)
	}
}
