package wire_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// patience is how long anything may take that should happen at once.
const patience = 30 * time.Second

// A bench is a client, a relay's two sockets on B, and a server.
type bench struct {
	client, a, b, server *net.TCPConn
}

// A place is where the client and the server of a bench are.
type place struct {
	name           string
	client, server func(*testnet.Chain) *testnet.Namespace
	front, back    string // addresses that B and the server listen on
}

func onA(c *testnet.Chain) *testnet.Namespace { return c.A }
func onB(c *testnet.Chain) *testnet.Namespace { return c.B }
func onC(c *testnet.Chain) *testnet.Namespace { return c.C }

func places() []place {
	return []place{
		{"two-armed", onA, onC, testnet.AddrBA, testnet.AddrC},
		{"two-armed-v6", onA, onC, testnet.Addr6BA, testnet.Addr6C},
		{"one-armed", onA, onA, testnet.AddrBA, testnet.AddrA},
		{"server-on-loopback", onA, onB, testnet.AddrBA, "127.0.0.1"},
		{"server-on-own-address", onA, onB, testnet.AddrBA, testnet.AddrBC},
		{"server-on-loopback-v6", onA, onB, testnet.Addr6BA, "::1"},
		{"client-on-loopback", onB, onC, "127.0.0.1", testnet.AddrC},
		{"both-on-loopback", onB, onB, "127.0.0.1", "127.0.0.1"},
		{"both-on-loopback-v6", onB, onB, "::1", "::1"},
	}
}

func (p place) open(t *testing.T, c *testnet.Chain) *bench {
	t.Helper()
	bench := &bench{}
	bench.client, bench.a = connect(t, p.client(c), c.B, p.front)
	bench.b, bench.server = connect(t, c.B, p.server(c), p.back)
	return bench
}

// splice opens a bench there, and hands it over.
func (p place) splice(t *testing.T) (*testnet.Chain, *bench, *wire.Pair) {
	t.Helper()
	c, b, pair := p.settled(t)
	pair.Dissolve()
	return c, b, pair
}

// settled is splice, but that the sockets are still there.
func (p place) settled(t *testing.T) (*testnet.Chain, *bench, *wire.Pair) {
	t.Helper()
	c := newChain(t)
	b := p.open(t, c)
	pair := consider(t, c, openPlane(t, c, wire.Config{}), b, func() {}) // the plane last: without a pair it soon ends
	switchOver(t, pair)
	return c, b, pair
}

// connect makes a connection whose segments have at most 1448 bytes, on
// loopback too.
func connect(t *testing.T, from, to *testnet.Namespace, addr string) (dialed, accepted *net.TCPConn) {
	t.Helper()
	return connectBy(t, from, to, addr, "")
}

// connectBy is connect with a link-local address, which has another zone where it is dialed.
func connectBy(t *testing.T, from, to *testnet.Namespace, addr, zone string) (dialed, accepted *net.TCPConn) {
	t.Helper()
	return connectWith(t, from, to, addr, zone, func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400) })
		return errors.Join(err, cerr)
	})
}

// connectWith is connectBy with what is done to both sockets instead.
func connectWith(t *testing.T, from, to *testnet.Namespace, addr, zone string, control func(_, _ string, c syscall.RawConn) error) (dialed, accepted *net.TCPConn) {
	t.Helper()
	var ln net.Listener
	err := to.Do(func() (err error) {
		lc := net.ListenConfig{Control: control}
		lc.SetMultipathTCP(false)
		ln, err = lc.Listen(context.Background(), "tcp", net.JoinHostPort(addr, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var conn net.Conn
	err = from.Do(func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		target := ln.Addr().(*net.TCPAddr)
		if zone != "" {
			target.Zone = zone
		}
		for {
			// The kernel has the route to an address of its own a moment after the address: until then it looks for a neighbour.
			conn, err = (&net.Dialer{Control: control}).DialContext(ctx, "tcp", target.String())
			if !errors.Is(err, syscall.EHOSTUNREACH) {
				return err
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	other, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return conn.(*net.TCPConn), other.(*net.TCPConn)
}

func newChain(t *testing.T) *testnet.Chain {
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

func openPlane(t *testing.T, c *testnet.Chain, config wire.Config) *wire.Plane {
	t.Helper()
	var p *wire.Plane
	err := c.B.Do(func() (err error) {
		p, err = wire.Open(config)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func fd(t *testing.T, c *net.TCPConn) (n int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(v uintptr) { n = int(v) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// consider enters a bench's pair, and wants it to be seen.
func consider(t *testing.T, c *testnet.Chain, p *wire.Plane, b *bench, news func()) *wire.Pair {
	t.Helper()
	var pair *wire.Pair
	eventually(t, "attached", func() bool {
		err := c.B.Do(func() error {
			var why wire.Refusal
			var err error
			pair, why, err = p.Consider(fd(t, b.a), fd(t, b.b), news)
			if why != 0 {
				return fmt.Errorf("refused: %d, %w", why, err)
			}
			return err
		})
		if err != nil && !errors.Is(err, wire.ErrPending) {
			t.Fatal(err)
		}
		return err == nil
	})
	eventually(t, "packets of both sides are seen", pair.Seen)
	return pair
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so after %v: %s", patience, what)
		}
	}
}

// drained waits until the sockets of a switched pair have delivered.
func drained(t *testing.T, pair *wire.Pair) {
	t.Helper()
	eventually(t, "drained", func() bool {
		drained, err := pair.Drained()
		if err != nil {
			t.Fatal(err)
		}
		return drained
	})
}

// settle waits until the sockets of a switched pair have delivered, and settles it.
func settle(t *testing.T, pair *wire.Pair) {
	t.Helper()
	drained(t, pair)
	if err := pair.Settle(wire.Meta{}, ""); err != nil {
		t.Fatal(err)
	}
}

// learned waits until the numbers of a pair in which nothing moves are known.
func learned(t *testing.T, pair *wire.Pair) {
	t.Helper()
	eventually(t, "learned", func() bool {
		err := pair.Learn([2]int{})
		if err != nil && !errors.Is(err, syscall.EAGAIN) {
			t.Fatal(err)
		}
		return err == nil
	})
}

// switchIdle switches a pair in which nothing moves.
func switchIdle(t *testing.T, pair *wire.Pair) {
	t.Helper()
	learned(t, pair)
	if err := pair.Switch(0, true); err != nil {
		t.Fatal(err)
	}
}

// handOver splices a pair in which nothing moves.
func handOver(t *testing.T, pair *wire.Pair) {
	t.Helper()
	switchOver(t, pair)
	pair.Dissolve()
}

// switchOver is handOver, but that the sockets are still there.
func switchOver(t *testing.T, pair *wire.Pair) {
	t.Helper()
	switchIdle(t, pair)
	settle(t, pair)
	if drained, err := pair.Drained(); !drained || err != nil {
		t.Fatal(drained, err)
	}
}

// carry sends n bytes from one to the other, and wants them to arrive.
func carry(t *testing.T, from, to *net.TCPConn, n int64) {
	t.Helper()
	deadline := time.Now().Add(patience)
	_ = from.SetDeadline(deadline)
	_ = to.SetDeadline(deadline)
	sent, got := sha256.New(), sha256.New()
	var wg sync.WaitGroup
	var sendErr error
	wg.Go(func() {
		src := rand.NewChaCha8([32]byte{byte(n)})
		_, sendErr = io.Copy(from, io.TeeReader(io.LimitReader(src, n), sent))
	})
	m, err := io.CopyN(got, to, n)
	wg.Wait()
	if err != nil || sendErr != nil || m != n {
		t.Fatalf("%d bytes of %d, %v, %v", m, n, err, sendErr)
	}
	if [32]byte(sent.Sum(nil)) != [32]byte(got.Sum(nil)) {
		t.Fatal("bytes differ")
	}
}

func TestIdlePair(t *testing.T) {
	for _, pl := range places() {
		t.Run(pl.name, func(t *testing.T) {
			c := newChain(t)
			b := pl.open(t, c)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			news := make(chan struct{}, 100)
			pair := consider(t, c, p, b, func() { news <- struct{}{} })
			handOver(t, pair)
			b.a.Close()
			b.b.Close()

			carry(t, b.client, b.server, 100)
			carry(t, b.server, b.client, 100)
			carry(t, b.client, b.server, 20<<20)
			carry(t, b.server, b.client, 20<<20)
			const total = 100 + 20<<20
			eventually(t, "all is acknowledged", func() bool {
				v, err := pair.Look()
				return err == nil && v.Delivered == [2]int64{total, total}
			})
			v, _ := pair.Look()
			if v.Flows[0].Errors+v.Flows[1].Errors > 0 {
				t.Errorf("%+v", v)
			}
			t.Logf("packets %d, %d; retransmits %d, %d", v.Flows[0].Packets, v.Flows[1].Packets, v.Flows[0].Retransmits, v.Flows[1].Retransmits)

			// The ends.
			b.client.CloseWrite()
			if _, err := b.server.Read(make([]byte, 1)); err != io.EOF {
				t.Fatal(err)
			}
			eventually(t, "a's FIN is acknowledged", func() bool {
				v, err := pair.Look()
				return err == nil && v.FIN == [2]bool{true, false} && v.Delivered[0] == total
			})
			<-news // of the switch, or of the FIN
			carry(t, b.server, b.client, 1000)
			b.server.Close()
			if _, err := b.client.Read(make([]byte, 1)); err != io.EOF {
				t.Fatal(err)
			}
			eventually(t, "both FINs are acknowledged", func() bool {
				v, err := pair.Look()
				return err == nil && v.FIN == [2]bool{true, true} && v.Delivered == [2]int64{total, total + 1000}
			})
			pair.Finish()
		})
	}
}

func TestRoutesChange(t *testing.T) {
	for _, pl := range places() {
		t.Run(pl.name, func(t *testing.T) {
			c, b, pair := pl.splice(t)
			carry(t, b.client, b.server, 1000)
			carry(t, b.server, b.client, 1000)
			// Every route that a socket remembers is void now.
			if err := c.B.AddAddr("lo", "10.99.0.1/32"); err != nil {
				t.Fatal(err)
			}
			if err := c.B.AddAddr("lo", "fd99::1/128"); err != nil {
				t.Fatal(err)
			}
			carry(t, b.client, b.server, 1000)
			carry(t, b.server, b.client, 1000)
			carry(t, b.client, b.server, 1000)
			pair.Abort()
			for _, c := range []*net.TCPConn{b.client, b.server} {
				_ = c.SetReadDeadline(time.Now().Add(patience))
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("after the abort: %v", err)
				}
			}
		})
	}
}
