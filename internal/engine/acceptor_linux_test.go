package engine

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// recorder is a Handler that tells a test.
type recorder struct {
	connected chan int
	failed    chan error
	ended     chan Result
}

func newRecorder() *recorder {
	return &recorder{make(chan int, 100), make(chan error, 100), make(chan Result, 100)}
}

func (r *recorder) Note(Flow) string                                  { return "" }
func (r *recorder) Sockets(bool)                                      {}
func (r *recorder) Connected(target int, _ netip.AddrPort, _ []error) { r.connected <- target }
func (r *recorder) Failed(err error, _ []error)                       { r.failed <- err }
func (r *recorder) Ended(res Result)                                  { r.ended <- res }

func target(t *testing.T, addr string) Target {
	t.Helper()
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		a, err := sys.UnixAddress(path)
		if err != nil {
			t.Fatal(err)
		}
		return Target{Name: addr, Address: a}
	}
	a, err := sys.TCPAddress(netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	return Target{Name: addr, Address: a}
}

// accept listens on a loopback address and gives each client to h.
func accept(t *testing.T, network, addr string, h Handler, admit func() bool, targets ...Target) (*Acceptor, string) {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return acceptAt(t, ln, h, admit, targets...)
}

// acceptAt is accept with a listener, which it closes.
func acceptAt(t *testing.T, ln net.Listener, h Handler, admit func() bool, targets ...Target) (*Acceptor, string) {
	t.Helper()
	r := new(Reactor)
	plan, err := r.Plan(Plan{Timeout: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	return acceptEach(t, r, ln, admit, func(*Session, netip.AddrPort) Way { return Way{Plan: plan, Targets: targets, Handler: h} })
}

// acceptEach has a reactor ask for the way of each client of a listener, which is closed.
func acceptEach(t *testing.T, r *Reactor, ln net.Listener, admit func() bool, accepted func(*Session, netip.AddrPort) Way) (*Acceptor, string) {
	t.Helper()
	defer ln.Close()
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if cerr := raw.Control(func(n uintptr) { fd, err = sys.Dup(int(n)) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	if admit == nil {
		admit = func() bool { return true }
	}
	a, err := r.Listen(AcceptSpec{FD: fd, Admit: admit, Accepted: accepted, Held: func(err error) { t.Log("held:", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); a.Wait() })
	return a, ln.Addr().String()
}

// exchange sends, half-closes, and wants it all back.
func exchange(t *testing.T, network, addr string) {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Fatalf("got %q, %v", b, err)
	}
}

func TestAcceptorJoins(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ name, network, addr string }{
		{"tcp4", "tcp", "127.0.0.1:0"},
		{"tcp6", "tcp", "[::1]:0"},
		{"unix", "unix", dir + "/"},
	} {
		t.Run(c.name, func(t *testing.T) {
			listen, serve := c.addr, c.addr
			if c.network == "unix" {
				listen, serve = c.addr+"a", c.addr+"b"
			}
			h := newRecorder()
			server := testnet.Echo(t, c.network, serve)
			name := server
			if c.network == "unix" {
				name = "unix:" + server
			}
			_, addr := accept(t, c.network, listen, h, nil, target(t, name))
			for range 20 {
				exchange(t, c.network, addr)
				if n := <-h.connected; n != 0 {
					t.Fatalf("connected to target %d", n)
				}
				res := <-h.ended
				if res.AToB.Bytes != 5 || res.BToA.Bytes != 5 || res.AToB.Reason != EOF || res.BToA.Reason != EOF {
					t.Fatalf("%+v", res)
				}
			}
		})
	}
}

// A listener for MPTCP, as Go makes them, can't leave urgent bytes in the streams of its clients: those of
// clients without MPTCP, which have such bytes, are told to.
func TestAcceptorKeepsUrgentBytes(t *testing.T) {
	for _, multipath := range []bool{false, true} {
		var lc net.ListenConfig
		lc.SetMultipathTCP(multipath)
		ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		h := newRecorder()
		_, addr := acceptAt(t, ln, h, nil, target(t, testnet.Echo(t, "tcp", "127.0.0.1:0")))
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range []byte("urgent bytes") {
			cerr := raw.Control(func(fd uintptr) { err = syscall.Sendto(int(fd), []byte{b}, i%2*syscall.MSG_OOB, nil) })
			if cerr != nil || err != nil {
				t.Fatal(cerr, err)
			}
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != "urgent bytes" {
			t.Errorf("MPTCP %v: got %q, %v", multipath, b, err)
		}
		if res := <-h.ended; res.AToB.Bytes != 12 || res.AToB.Reason != EOF || res.BToA.Bytes != 12 {
			t.Errorf("MPTCP %v: %+v", multipath, res)
		}
	}
}

// closedPort is an address that nobody listens on.
func closedPort(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestAcceptorTriesTargetsInTurn(t *testing.T) {
	h := newRecorder()
	_, addr := accept(t, "tcp", "127.0.0.1:0", h, nil, target(t, closedPort(t)), target(t, testnet.Echo(t, "tcp", "127.0.0.1:0")))
	exchange(t, "tcp", addr)
	if n := <-h.connected; n != 1 {
		t.Fatalf("connected to target %d, want the second", n)
	}
	<-h.ended
}

func TestAcceptorResetsTheClientOfNoTarget(t *testing.T) {
	h := newRecorder()
	dead := closedPort(t)
	_, addr := accept(t, "tcp", "127.0.0.1:0", h, nil, target(t, dead))
	c, err := net.Dial("tcp", addr)
	if err == nil { // else the reset was faster than Dial's own work
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the client saw %v, want a reset", err)
	}
	if err := <-h.failed; !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), dead) {
		t.Fatalf("failed with %v", err)
	}
	select {
	case <-h.ended:
		t.Fatal("a session that was never joined has ended")
	default:
	}
}

func TestAcceptorHoldsBackAndResumes(t *testing.T) {
	h := newRecorder()
	var room atomic.Int32
	room.Store(1)
	asked := make(chan struct{}, 100)
	admit := func() bool {
		if room.Add(-1) >= 0 {
			return true
		}
		asked <- struct{}{}
		return false
	}
	a, addr := accept(t, "tcp", "127.0.0.1:0", h, admit, target(t, testnet.Echo(t, "tcp", "127.0.0.1:0")))
	first, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	<-h.connected
	second, err := net.Dial("tcp", addr) // into the kernel's queue
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	<-asked
	select {
	case <-h.connected:
		t.Fatal("accepted although told not to")
	default:
	}
	room.Store(10)
	a.Resume()
	<-h.connected
}

// Who has received a byte finds it counted.
func TestStatsKeepUpWithDelivery(t *testing.T) {
	h := newRecorder()
	server := testnet.Echo(t, "tcp", "127.0.0.1:0")
	sessions := make(chan *Session, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if cerr := raw.Control(func(n uintptr) { fd, err = sys.Dup(int(n)) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	r := new(Reactor)
	plan, err := r.Plan(Plan{Timeout: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.Listen(AcceptSpec{
		FD: fd, Admit: func() bool { return true }, Held: func(error) {},
		Accepted: func(s *Session, _ netip.AddrPort) Way {
			sessions <- s
			return Way{Plan: plan, Targets: []Target{target(t, server)}, Handler: h}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { a.Close(); a.Wait() }()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := <-sessions
	<-h.connected // the session is complete
	b := make([]byte, 64)
	for i := int64(1); i <= 2000; i++ {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		if st := s.Stats(); st.AToB.Bytes != 64*i || st.BToA.Bytes != 64*i {
			t.Fatalf("after exchange %d: %d and %d bytes counted, want %d", i, st.AToB.Bytes, st.BToA.Bytes, 64*i)
		}
	}
	c.Close()
	<-h.ended
}

// One connection is accepted an event, and twice as many each time that the next
// wait finds more at once: nobody waits for long, and accept(2) seldom finds
// nobody.
func TestAcceptTurnsGrowWithTheQueue(t *testing.T) {
	testnet.Leaks(t)
	const clients = 40
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dial := func() {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	for range clients {
		dial()
	}
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	asked, accepted := 0, 0
	var session *Session
	a := &Acceptor{spec: AcceptSpec{
		Admit: func() bool { asked++; return true },
		Accepted: func(s *Session, _ netip.AddrPort) Way {
			if session == nil {
				session = s
			} else if s != session {
				t.Error("a session is made for each client, and none has used the first")
			}
			return Way{Hold: func(h Held) { accepted++; _ = sys.Close(h.FD) }}
		},
		Held: func(err error) { t.Errorf("held: %v", err) },
	}}
	var e *ear
	turn := func(l *loop, want int) {
		t.Helper()
		before := accepted
		e.accept(l)
		if got := accepted - before; got != want {
			t.Errorf("%d accepted, want %d", got, want)
		}
	}
	err = raw.Control(func(fd uintptr) {
		a.spec.FD = int(fd)
		e = &ear{a: a}
		l := &loop{reactor: new(Reactor), waits: 10}
		for _, want := range []int{1, 2, 4, 8, 16} {
			turn(l, want)
			l.waits++
		}
		if asked != accepted {
			t.Errorf("accept(2) was called %d times for %d clients", asked, accepted)
		}
		turn(l, clients-31)
		l.waits += 2 // one without clients
		dial()
		dial()
		turn(l, 1)
		l.waits++
		turn(l, 1)
	})
	if err != nil {
		t.Fatal(err)
	}
}
