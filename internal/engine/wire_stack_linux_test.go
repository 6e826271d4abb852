package engine_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A spliced connection to a server that answers messages.
type splicedOne struct {
	spec           relaySpec
	relay          *relay
	client, server *net.TCPConn
	ended          chan error // how the server has ended to read and answer
	n              int64      // bytes that have gone each way
}

func spliceOne(t *testing.T, c *testnet.Chain) *splicedOne {
	t.Helper()
	return spliceOneFor(t, c, relaySpec{})
}

// spliceOneFor has it by a relay with what spec says beside its addresses and its engine.
func spliceOneFor(t *testing.T, c *testnet.Chain, spec relaySpec) *splicedOne {
	t.Helper()
	return spliceOneTo(t, c, c.C, testnet.AddrC, spec)
}

// spliceOneTo has it with a server elsewhere.
func spliceOneTo(t *testing.T, c *testnet.Chain, at *testnet.Namespace, host string, spec relaySpec) *splicedOne {
	t.Helper()
	s := &splicedOne{ended: make(chan error, 1)}
	conns, over := make(chan *net.TCPConn, 1), make(chan struct{})
	addr := serve(t, at, host, func(conn *net.TCPConn) {
		conns <- conn
		var err error
		for err == nil {
			var b [64]byte
			if _, err = io.ReadFull(conn, b[:]); err == nil {
				_, err = conn.Write(b[:])
			}
		}
		s.ended <- err
		<-over
	})
	t.Cleanup(func() { close(over) }) // first: serve waits
	spec.Listen, spec.Target, spec.Kind = testnet.AddrBA+":0", addr, uint8(engine.Wire)
	s.spec = spec
	s.relay = startRelay(t, c.B, s.spec)
	if spec.Policy.Instance != "" {
		s.relay.adopted(t) // it says so first
	}
	s.client = dialRelay(t, c.A, s.relay)
	s.server = <-conns
	s.n = pingUntilWire(t, s.relay, s.client)
	return s
}

// wantEnd wants the server to have ended so.
func (s *splicedOne) wantEnd(t *testing.T, want error) {
	t.Helper()
	select {
	case err := <-s.ended:
		if !errors.Is(err, want) {
			t.Errorf("the server has got %v, want %v", err, want)
		}
	case <-time.After(wirePatience):
		t.Errorf("the server waits for %v", want)
	}
}

// socketState is the state of a namespace's TCP socket of a local port, as /proc/net/tcp
// has it: empty if there is none.
func socketState(t *testing.T, ns *testnet.Namespace, conn *net.TCPConn) string {
	t.Helper()
	list, err := ns.ReadProcNet("tcp")
	if err != nil {
		t.Fatal(err)
	}
	port := func(a net.Addr) string { return fmt.Sprintf(":%04X", a.(*net.TCPAddr).Port) }
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasSuffix(f[1], port(conn.LocalAddr())) && strings.HasSuffix(f[2], port(conn.RemoteAddr())) {
			return f[3]
		}
	}
	return ""
}

// within polls.
func within(t *testing.T, limit time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Both sides close before they have heard of the other's end: the FINs have crossed each other when
// they arrive.
func TestWireClosesAtOnce(t *testing.T) {
	c := wireChain(t)
	testnet.Need(t, "peers")
	s := spliceOne(t, c)
	r, client, n := s.relay, s.client, s.n
	ctx := context.Background()
	for _, ns := range []*testnet.Namespace{c.A, c.C} {
		if err := ns.Lose(ctx, 1000); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(client.CloseWrite(), s.server.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	within(t, wirePatience, "both FINs have crossed, and were sent again", func() bool {
		st := r.stats(t)
		return st.Wire.Retransmits[0] > 0 && st.Wire.Retransmits[1] > 0
	})
	for _, ns := range []*testnet.Namespace{c.A, c.C} {
		if err := ns.Heal(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := client.Read(make([]byte, 1)); m > 0 || err != io.EOF {
		t.Errorf("the client has read %d bytes, %v, want the end", m, err)
	}
	s.wantEnd(t, io.EOF)
	res := r.result(t)
	wantEOF(t, res, n, n)
	if res.Engine != "wire" || res.Wire.Errors != [2]uint64{} {
		t.Errorf("%+v", res)
	}
	// Only of a close at once is there one at both sides.
	const timeWait = "06"
	within(t, wirePatience, "both are in TIME_WAIT", func() bool {
		return socketState(t, c.A, client) == timeWait && socketState(t, c.C, s.server) == timeWait
	})
}

// A server stops to read before the hand-over, its window closes behind it, and the sender asks
// again and again whether it is open. What is lost of the answer is asked for once more.
func TestWireZeroWindow(t *testing.T) {
	const size = 32 << 20
	for _, tc := range []struct {
		name string
		lost bool // what says that it is open again
	}{{"stalls", false}, {"stalls, and the window's opening is lost", true}} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			testnet.Need(t, "peers")
			goOn, read := make(chan struct{}), make(chan struct{})
			addr := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
				var b [64]byte
				if _, err := io.ReadFull(conn, b[:]); err != nil {
					return
				}
				_, _ = conn.Write(b[:])
				<-goOn
				h := sha256.New()
				_, _ = io.CopyN(h, conn, 64<<10) // it has announced that when it is in
				close(read)
				_, _ = io.Copy(h, conn)
				_, _ = conn.Write(h.Sum(nil))
			})
			r := startRelay(t, c.B, relaySpec{Listen: testnet.AddrBA + ":0", Target: addr, Kind: uint8(engine.Wire)})
			conn := dialRelay(t, c.A, r)
			exchange(t, conn, make([]byte, 64))
			data := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
			if _, err := io.CopyN(conn, data, 20<<10); err != nil {
				t.Fatal(err)
			}
			within(t, wirePatience, "handed over", func() bool { return r.stats(t).Engine == "wire" })
			probes := func() uint64 {
				n, err := c.A.Counter("TcpExtTCPWinProbe")
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			before := probes()
			sent := make(chan error, 1)
			go func() {
				_, err := io.Copy(conn, data)
				sent <- errors.Join(err, conn.CloseWrite())
			}()
			within(t, 2*wirePatience, "the sender has asked three times", func() bool { return probes() >= before+3 })
			if st := r.stats(t); st.AToB >= size || st.Engine != "wire" {
				t.Errorf("%+v, want a part of it delivered", st)
			}
			if tc.lost {
				if err := c.A.Lose(context.Background(), 1000); err != nil {
					t.Fatal(err)
				}
			}
			close(goOn)
			if tc.lost {
				<-read
				if err := c.A.Heal(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			sum, err := io.ReadAll(conn)
			if err != nil || [32]byte(sum) != hashOf(1, size) {
				t.Errorf("bytes differ, %v", err)
			}
			res := r.result(t)
			wantEOF(t, res, size+64, 64+32)
			if res.Engine != "wire" || res.Wire.Errors != [2]uint64{} {
				t.Errorf("%+v", res)
			}
		})
	}
}

// option sets one of a socket's TCP options.
func option(t *testing.T, conn *net.TCPConn, name, value int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, name, value) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Keep-alive probes of an end go across, and the other end answers them. When it does not any more, the
// prober gives up, and its RST ends the flow.
func TestWireKeepalive(t *testing.T) {
	c := wireChain(t)
	s := spliceOne(t, c)
	r, client, n := s.relay, s.client, s.n
	if err := client.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}); err != nil {
		t.Fatal(err)
	}
	probes := func() uint64 {
		n, err := c.A.Counter("TcpExtTCPKeepAlive")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := probes()
	within(t, wirePatience, "four probes", func() bool { return probes() >= before+4 }) // two are given up on
	if st := r.stats(t); st.Engine != "wire" || st.AToB != n || st.SinceLastMoved < 3*time.Second {
		t.Errorf("%+v, want %d bytes, and nothing moved since", st, n)
	}
	exchange(t, client, make([]byte, 64))
	n += 64

	if err := c.C.Down(testnet.LinkCB); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("the client has got %v, want that nobody answers", err)
	}
	res := r.result(t)
	if res.AToB != n || res.BToA != n || res.ReasonA != "reset-by-source" || res.ReasonB != "reset-by-drain" || res.Engine != "wire" {
		t.Errorf("%+v, want %d bytes, and a reset of the client's", res, n)
	}
}

// A client's TCP_USER_TIMEOUT counts what the server has not acknowledged. That it gave up nobody is told,
// as without a relay; what the server says then is answered with a RST, which ends the flow.
func TestWireUserTimeout(t *testing.T) {
	c := wireChain(t)
	s := spliceOne(t, c)
	r, client, n := s.relay, s.client, s.n
	const userTimeout = 18 // TCP_USER_TIMEOUT
	option(t, client, userTimeout, 1000)
	if err := c.C.Down(testnet.LinkCB); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("the client has got %v, want that nobody acknowledges", err)
	}
	client.Close()
	if st := r.stats(t); !st.Live || st.AToB != n || st.ReasonA != "running" {
		t.Errorf("%+v, want that it goes on", st)
	}

	if err := c.C.Run(t.Context(), "", "ip", "link", "set", testnet.LinkCB, "up"); err != nil {
		t.Fatal(err)
	}
	if err := c.C.AddRoute("0.0.0.0/0", testnet.AddrBC); err != nil {
		t.Fatal(err)
	}
	if _, err := s.server.Write([]byte("are you there?")); err != nil {
		t.Fatal(err)
	}
	res := r.result(t)
	// B may have kept the last message until it has found its neighbour again.
	if res.AToB != n && res.AToB != n+64 || res.BToA != n || res.ReasonA != "reset-by-source" || res.ReasonB != "reset-by-drain" || res.Engine != "wire" {
		t.Errorf("%+v, want %d bytes, and a reset of the client's", res, n)
	}
	s.wantEnd(t, syscall.ECONNRESET)
}

// A server on an address of B's own that has lost its socket without a word answers nothing to what comes across: its kernel
// sends no RST for it. The relay asks it, and that is answered. So does the next process of an instance.
func TestWireServerVanishesHere(t *testing.T) {
	for _, tc := range []struct {
		name   string
		killed bool
	}{{"asked at once", false}, {"asked by the next process", true}} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			policy := engine.WirePolicy{Instance: "test", Root: testnet.BPFFS(t)}
			s := spliceOneTo(t, c, c.B, testnet.AddrBC, relaySpec{Policy: policy})
			s.rest(t)
			within(t, wirePatience, "the sockets to go", func() bool { return sockets(t, c.B) == 1 }) // but the server's
			if tc.killed {
				s.relay.kill(t)
			}
			vanish(t, s.server)
			if _, err := s.client.Write([]byte("are you there?")); err != nil {
				t.Fatal(err)
			}
			if tc.killed {
				s.relay = startRelay(t, c.B, s.spec)
				if n := s.relay.adopted(t); n != 1 {
					t.Fatalf("adopted %d, want 1", n)
				}
			}
			_ = s.client.SetReadDeadline(time.Now().Add(wirePatience))
			if _, err := s.client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client has got %v, want a reset", err)
			}
			res := s.relay.result(t)
			if res.AToB != s.n || res.BToA != s.n || res.Engine != "wire" || res.ReasonA != "reset-by-drain" || res.ReasonB != "reset-by-source" {
				t.Errorf("%+v, want %d bytes, and a reset of the server's", res, s.n)
			}
			s.relay.end()
			if err := wire.Purge(wire.Config{Instance: policy.Instance, Root: policy.Root}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A RST that is not where its receiver is, as far as is known, is doubted. If it is true, and who would have
// asked is gone too, the relay asks its sender: what is left of that one's machine says the rest.
func TestWireResetUnheard(t *testing.T) {
	c := wireChain(t)
	s := spliceOne(t, c)
	s.rest(t)
	s.resetUnheard(t, c)
	s.wantReset(t)
}

// The next process of an instance asks, if the RST has come while there was none, or if the answer to
// the one that was there was lost.
func TestWireResetUnheardByNobody(t *testing.T) {
	for _, tc := range []struct {
		name  string
		asked bool
	}{{"nobody has asked", false}, {"there was no answer", true}} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			policy := engine.WirePolicy{Instance: "test", Root: testnet.BPFFS(t)}
			s := spliceOneFor(t, c, relaySpec{Policy: policy})
			s.rest(t)
			if tc.asked {
				if err := c.A.Lose(t.Context(), 1000); err != nil {
					t.Fatal(err)
				}
				atA, seen := startCapture(t, c.A, testnet.LinkAB), 0
				s.resetUnheard(t, c)
				within(t, wirePatience, "the client's machine is asked", func() bool {
					atA.mu.Lock()
					defer atA.mu.Unlock()
					for ; seen < len(atA.packets) && atA.packets[seen].out; seen++ {
					}
					return seen < len(atA.packets)
				})
			}
			s.relay.kill(t)
			if tc.asked {
				if err := c.A.Heal(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else {
				s.resetUnheard(t, c)
			}
			s.relay = startRelay(t, c.B, s.spec)
			if n := s.relay.adopted(t); n != 1 {
				t.Fatalf("adopted %d, want 1", n)
			}
			s.wantReset(t)
			s.relay.end()
			if err := wire.Purge(wire.Config{Instance: policy.Instance, Root: policy.Root}); err != nil {
				t.Error(err)
			}
		})
	}
}

// rest waits until all is acknowledged.
func (s *splicedOne) rest(t *testing.T) {
	t.Helper()
	within(t, wirePatience, "all is acknowledged", func() bool {
		st := s.relay.stats(t)
		return st.AToB == s.n && st.BToA == s.n
	})
}

// resetUnheard has both ends leave without a word, and the client's machine send a RST that is not
// where the server was.
func (s *splicedOne) resetUnheard(t *testing.T, c *testnet.Chain) {
	t.Helper()
	local, peer := s.client.LocalAddr().(*net.TCPAddr).AddrPort(), s.client.RemoteAddr().(*net.TCPAddr).AddrPort()
	last := vanish(t, s.client)
	vanish(t, s.server)
	forged := testnet.Segment{From: local, To: peer, Seq: last + 100, Flags: testnet.RST}
	if err := c.A.Forge(&forged); err != nil {
		t.Fatal(err)
	}
}

// vanish ends a socket without a word, and returns the number of what it would have sent next.
func vanish(t *testing.T, conn *net.TCPConn) (next uint32) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	cerr := raw.Control(func(v uintptr) {
		fd := int(v)
		err = errors.Join(sys.SetRepair(fd, sys.RepairOn), sys.SetRepairQueue(fd, sys.SendQueue))
		n, qerr := sys.QueueSeq(fd)
		next, err = n, errors.Join(err, qerr)
	})
	if err := errors.Join(err, cerr, conn.Close()); err != nil {
		t.Fatal(err)
	}
	return next
}

// wantReset wants the session to end with a RST of the client's.
func (s *splicedOne) wantReset(t *testing.T) {
	t.Helper()
	res := s.relay.result(t)
	if res.AToB != s.n || res.BToA != s.n || res.Engine != "wire" || res.ReasonA != "reset-by-source" || res.ReasonB != "reset-by-drain" {
		t.Errorf("%+v, want %d bytes, and a reset of the client's", res, s.n)
	}
}
