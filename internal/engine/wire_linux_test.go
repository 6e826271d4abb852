package engine_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/testnet"
)

// handOvers says how many to make: few, or what the variable names. The figures
// of docs/wire.md want hundreds, which takes a quarter of an hour.
func handOvers(few int) int {
	if n, err := strconv.Atoi(os.Getenv("SPLICED_HANDOVERS")); err == nil {
		return n
	}
	return few
}

func wireChain(t *testing.T) *testnet.Chain {
	t.Helper()
	testnet.Need(t, "root", "netns", "bpf")
	testnet.Leaks(t)
	c, err := testnet.NewChain()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// serve runs f for each connection to an address in a namespace, until the test
// ends.
func serve(t *testing.T, ns *testnet.Namespace, addr string, f func(*net.TCPConn)) string {
	t.Helper()
	return serveWith(t, ns, addr, nil, f)
}

// serveWith is serve with a listening socket that is prepared by control: see [net.ListenConfig].
func serveWith(t *testing.T, ns *testnet.Namespace, addr string, control func(network, address string, c syscall.RawConn) error, f func(*net.TCPConn)) string {
	t.Helper()
	var ln net.Listener
	err := ns.Do(func() (err error) {
		lc := net.ListenConfig{Control: control}
		lc.SetMultipathTCP(false)
		ln, err = lc.Listen(context.Background(), "tcp", net.JoinHostPort(addr, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := make(map[net.Conn]struct{})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = struct{}{}
			mu.Unlock()
			wg.Go(func() {
				f(c.(*net.TCPConn))
				c.Close()
				mu.Lock()
				delete(conns, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

func echo64(c *net.TCPConn) {
	var b [64]byte
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return
		}
		if _, err := c.Write(b[:]); err != nil {
			return
		}
	}
}

func dialRelay(t *testing.T, ns *testnet.Namespace, r *relay) *net.TCPConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wirePatience)
	defer cancel()
	c, err := ns.Dial(ctx, "tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	return c.(*net.TCPConn)
}

func wantEOF(t *testing.T, res relayResult, aToB, bToA int64) {
	t.Helper()
	if res.AToB != aToB || res.BToA != bToA || res.ReasonA != "eof" || res.ReasonB != "eof" || res.Err != "" {
		t.Fatalf("%+v, want %d and %d bytes, eof", res, aToB, bToA)
	}
}

// spread is the middle and the end of some durations. A long list is measured in
// several runs, whose ends can be put together.
func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	slices.Sort(d)
	s := fmt.Sprintf("median %v, p99 %v, most %v", d[len(d)/2], d[len(d)*99/100], d[len(d)-1])
	if len(d) >= 100 {
		s += fmt.Sprintf(", the last %v", d[len(d)-11:])
	}
	return s
}

// slowestExchange plays ping-pong for 80 ms, in which a hand-over happens.
func slowestExchange(t *testing.T, conn *net.TCPConn) (worst time.Duration, exchanges int64) {
	t.Helper()
	var b [64]byte
	const length = 80 * time.Millisecond
	for began := time.Now(); time.Since(began) < length; exchanges++ {
		b[0] = byte(exchanges)
		at := time.Now()
		if _, err := conn.Write(b[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			t.Fatal(err)
		}
		if b[0] != byte(exchanges) {
			t.Fatal("another answer than asked for")
		}
		worst = max(worst, time.Since(at))
	}
	return worst, exchanges
}

// Hand-overs in the middle of a ping-pong, in turn with the same exchange by way of
// splice, and without any relay.
func TestWirePingPong(t *testing.T) {
	n := handOvers(30)
	c := wireChain(t)
	server := serve(t, c.C, testnet.AddrC, echo64)
	relays := map[string]*relay{"direct": {addr: server}}
	for _, k := range []engine.Kind{engine.Wire, engine.Splice} {
		relays[k.String()] = startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(k)})
	}
	slowest := make(map[string][]time.Duration)
	late := 0
	for range n {
		for name, r := range relays {
			conn := dialRelay(t, c.A, r)
			worst, exchanges := slowestExchange(t, conn)
			conn.Close()
			if r.results != nil {
				res := r.result(t)
				wantEOF(t, res, exchanges*64, exchanges*64)
				if name == "wire" && res.Engine != "wire" {
					late++ // the machine was too busy to get there in time
					continue
				}
			}
			slowest[name] = append(slowest[name], worst)
		}
	}
	if late > n/4 {
		t.Fatalf("only %d of %d were handed over", n-late, n)
	}
	for name, d := range slowest {
		t.Logf("slowest exchange of %d connections, %s: %s", len(d), name, spread(d))
	}
}

// Hand-overs in the middle of a stream: for how long does it carry less than half of
// what it carries mostly?
func TestWireBulkGap(t *testing.T) {
	n := handOvers(3)
	c := wireChain(t)
	const bucket, buckets = 5 * time.Millisecond, 80
	rates := make(chan []int64, 1)
	server := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
		rate := make([]int64, buckets)
		buf := make([]byte, 256<<10)
		began, total := time.Now(), int64(0)
		for {
			n, err := conn.Read(buf)
			if i := int(time.Since(began) / bucket); i < buckets {
				rate[i] += int64(n)
			}
			if total += int64(n); err != nil {
				break
			}
		}
		rates <- append(rate, total)
	})
	relays := make(map[string]*relay)
	for _, k := range []engine.Kind{engine.Wire, engine.Splice} {
		relays[k.String()] = startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(k)})
	}
	gaps := make(map[string][]time.Duration)
	late := 0
	data := make([]byte, 256<<10)
	for range n {
		for name, r := range relays {
			conn := dialRelay(t, c.A, r)
			sent := int64(0)
			for began := time.Now(); time.Since(began) < bucket*buckets; {
				m, err := conn.Write(data)
				if err != nil {
					t.Fatal(err)
				}
				sent += int64(m)
			}
			_ = conn.CloseWrite()
			rate := <-rates
			conn.Close()
			res := r.result(t)
			wantEOF(t, res, sent, 0)
			if got := rate[buckets]; got != sent {
				t.Fatalf("%d bytes of %d", got, sent)
			}
			if name == "wire" && res.Engine != "wire" {
				late++
				continue
			}
			rate = rate[:buckets]
			sorted := slices.Clone(rate)
			slices.Sort(sorted)
			gap, longest := 0, 0
			for _, v := range rate {
				if gap++; v >= sorted[buckets/2]/2 {
					gap = 0
				}
				longest = max(longest, gap)
			}
			gaps[name] = append(gaps[name], time.Duration(longest)*bucket)
		}
	}
	if late > n/2 {
		t.Fatalf("only %d of %d were handed over", n-late, n)
	}
	for name, d := range gaps {
		t.Logf("below half of the median rate, %d streams, %s: %s", len(d), name, spread(d))
	}
}

// Hand-overs in the middle of streams, one way and both ways.
func TestWireBulk(t *testing.T) {
	n, size := handOvers(6), int64(512<<20)
	c := wireChain(t)
	server := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
		var kind [1]byte
		if _, err := io.ReadFull(conn, kind[:]); err != nil {
			return
		}
		var wg sync.WaitGroup
		if kind[0]&1 != 0 {
			wg.Go(func() {
				h := sha256.New()
				_, _ = io.Copy(h, conn)
				if kind[0] == 1 {
					_, _ = conn.Write(h.Sum(nil))
				}
			})
		}
		if kind[0]&2 != 0 {
			_, _ = io.Copy(conn, io.LimitReader(rand.NewChaCha8([32]byte{}), size))
		}
		wg.Wait()
	})
	h := sha256.New()
	_, _ = io.Copy(h, io.LimitReader(rand.NewChaCha8([32]byte{}), size))
	want := h.Sum(nil)
	for _, k := range []struct {
		name       string
		kind       byte
		aToB, bToA int64
	}{{"up", 1, size + 1, 32}, {"down", 2, 1, size}, {"both", 3, size + 1, size}} {
		t.Run(k.name, func(t *testing.T) {
			r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire)})
			var held []time.Duration
			var attempts []int
			var retransmits uint64
			for range max(1, n/3) {
				conn := dialRelay(t, c.A, r)
				if _, err := conn.Write([]byte{k.kind}); err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				if k.kind&1 != 0 {
					wg.Go(func() {
						_, _ = io.Copy(conn, io.LimitReader(rand.NewChaCha8([32]byte{}), size))
						_ = conn.CloseWrite()
					})
				} else {
					_ = conn.CloseWrite()
				}
				got := sha256.New()
				_, err := io.Copy(got, conn)
				if err != nil {
					t.Fatal(err)
				}
				wg.Wait()
				if k.kind&2 != 0 && string(got.Sum(nil)) != string(want) {
					t.Fatal("bytes differ")
				}
				conn.Close()
				res := r.result(t)
				wantEOF(t, res, k.aToB, k.bToA)
				if k.kind == 2 && res.Engine != "wire" {
					continue // half-closed before its hand-over
				}
				if res.Engine != "wire" {
					t.Fatalf("%+v", res)
				}
				held = append(held, res.Wire.Closed)
				attempts = append(attempts, res.Wire.Attempts)
				retransmits += res.Wire.Retransmits[0] + res.Wire.Retransmits[1]
			}
			if len(held) == 0 {
				return
			}
			slices.Sort(held)
			t.Logf("%d hand-overs; windows closed: median %v, most %v; %d attempts at most; %d segments retransmitted or overtaken",
				len(held), held[len(held)/2], held[len(held)-1], slices.Max(attempts), retransmits)
		})
	}
}

// The ends of a spliced connection, and what its session says of them.
func TestWireEnds(t *testing.T) {
	for _, tc := range []struct {
		name             string
		limits           engine.Limits
		act              func(t *testing.T, r *relay, client *net.TCPConn)
		reasonA, reasonB string
		clientErr        error
	}{
		{"client closes", engine.Limits{}, func(_ *testing.T, _ *relay, c *net.TCPConn) { c.Close() }, "eof", "eof", nil},
		{"client resets", engine.Limits{}, func(_ *testing.T, _ *relay, c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, "reset-by-source", "reset-by-drain", nil},
		{"idle", engine.Limits{Idle: 300 * time.Millisecond}, nil, "idle", "idle", syscall.ECONNRESET},
		{"lifetime", engine.Limits{Lifetime: 500 * time.Millisecond}, nil, "lifetime", "lifetime", syscall.ECONNRESET},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			ended := make(chan error, 1)
			server := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
				echo64(conn)
				_, err := conn.Read(make([]byte, 1))
				ended <- err
			})
			r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire), Limits: tc.limits})
			conn := dialRelay(t, c.A, r)
			n := pingUntilWire(t, r, conn)
			if tc.act != nil {
				tc.act(t, r, conn)
			}
			if tc.clientErr != nil {
				if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, tc.clientErr) {
					t.Errorf("the client saw %v, want %v", err, tc.clientErr)
				}
			}
			<-ended
			res := r.result(t)
			// What a RST overtook counts only if it was acknowledged before.
			if res.AToB != n || res.BToA > n || res.BToA < n-64 || res.ReasonA != tc.reasonA || res.ReasonB != tc.reasonB || res.Engine != "wire" {
				t.Errorf("%+v, want %d bytes, %s, %s", res, n, tc.reasonA, tc.reasonB)
			}
		})
	}
}

// pingUntilWire exchanges messages until they go by the program, and returns
// how many bytes that were, each way.
func pingUntilWire(t *testing.T, r *relay, c *net.TCPConn) (n int64) {
	t.Helper()
	var b [64]byte
	for end := time.Now().Add(wirePatience); time.Now().Before(end); {
		for range 20 {
			if _, err := c.Write(b[:]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, b[:]); err != nil {
				t.Fatal(err)
			}
			n += 64
		}
		st := r.stats(t)
		if st.Engine == "wire" && st.Wire.Packets[0] > 0 {
			return n
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("not handed over: %+v", r.stats(t))
	return n
}
