package proxy

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// A client that was admitted just before Close is not dialled for: nobody would
// end that dial.
func TestTakeAfterClose(t *testing.T) {
	var s Server
	s.close(true)
	l := &listener{server: &s}
	if _, err := s.take(l, &policy{}, netip.AddrPort{}); err != ErrServerClosed {
		t.Errorf("taken with %v, want %v", err, ErrServerClosed)
	}
	c := &conn{listener: l}
	if err := c.begin(&splice.Session{}); err != ErrServerClosed || s.dialing.len != 0 {
		t.Errorf("begun with %v, want %v", err, ErrServerClosed)
	}
}

// A listener accepts before the server knows it. If it is told meanwhile that
// there is no room, it still learns when there is again.
func TestListenerThatIsFullAtOnce(t *testing.T) {
	testnet.Leaks(t)
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	defer served.Wait()
	defer target.Close()
	served.Go(func() {
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	})
	loopback := Addr{Network: "tcp", Address: "127.0.0.1:0"}
	s := &Server{Config: Config{
		Listeners: map[string]Listener{"l": {Address: []string{loopback.Address}, Upstream: "u"}},
		Upstreams: map[string]Upstream{"u": {Servers: Targets(target.Addr().String())}},
	}}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// One more socket of the listener, step by step.
	ln, err := Listen(t.Context(), loopback, SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	k := &socket{server: s, ln: ln, addr: ln.Addr()}
	room := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.files = n
		s.change()
	}
	room(0)
	s.mu.Lock()
	l := s.listeners["l"]
	k.listener.Store(l)
	l.sockets = append(slices.Clone(l.sockets), k)
	s.sockets[k] = struct{}{}
	s.mu.Unlock()
	if err := k.prepare(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	k.accept()
	s.mu.Unlock()

	until := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; runtime.Gosched() {
			s.mu.Lock()
			ok := is()
			s.mu.Unlock()
			if ok {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("waited in vain until " + what)
			}
		}
	}
	client, err := net.Dial("tcp", k.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	until("the listener is full", func() bool { return k.full })
	room(1)
	until("the client is accepted", func() bool { return s.accepted == 1 })
}
