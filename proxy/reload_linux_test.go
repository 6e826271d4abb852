package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
)

// reloadable is a configuration of one listener, and so many upstreams more.
func reloadable(address string, more int) Config {
	c := Config{
		Listeners: map[string]Listener{"l": {Address: []string{address}, Upstream: "u"}},
		Upstreams: map[string]Upstream{"u": {Servers: Targets("127.0.0.1:9")}},
	}
	for i := range more {
		c.Upstreams[fmt.Sprint("more-", i)] = Upstream{Servers: Targets("127.0.0.1:9")}
	}
	return c
}

func startServer(t *testing.T, s *Server) {
	t.Helper()
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A reload that is refused leaves nothing behind, also no memory: it may be tried
// again for ever.
func TestRefusedReloadKeepsNothing(t *testing.T) {
	testnet.Leaks(t)
	s := &Server{Config: reloadable("127.0.0.1:0", 0)}
	startServer(t, s)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	const upstreams, reloads = 200, 300
	bad := reloadable("127.0.0.1:0", upstreams)
	bad.Listeners["taken"] = Listener{Address: []string{taken.Addr().String()}, Upstream: "u"}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	refuse := func() {
		if err := s.Reload(t.Context(), bad); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("reload: %v, want the address to be in use", err)
		}
	}
	refuse()
	before := heap()
	for range reloads {
		refuse()
	}
	// A context of each new upstream would be some 100 bytes.
	if grown := heap() - before; grown > reloads*upstreams*20 {
		t.Errorf("%d bytes are kept of %d reloads that were refused", grown, reloads)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// deafSocket is a listener whose socket does not listen: nothing tells that before
// it is to accept.
func deafSocket(t *testing.T) net.Listener {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "deaf")
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// An error of Reload says that the old configuration is in force, also when it
// comes as late as it can.
func TestReloadFailsBeforeItIsInForce(t *testing.T) {
	testnet.Leaks(t)
	deaf := false
	s := &Server{Config: reloadable("127.0.0.1:0", 0), Listen: func(ctx context.Context, a Addr, o SocketOptions) ([]net.Listener, error) {
		if deaf {
			return []net.Listener{deafSocket(t)}, nil
		}
		ln, err := Listen(ctx, a, o)
		return []net.Listener{ln}, err
	}}
	startServer(t, s)
	addr := s.Addrs("l")[0].String()
	next := reloadable("127.0.0.1:0", 1)
	next.Listeners["more"] = Listener{Address: []string{"127.0.0.1:0"}, Upstream: "more-0"}
	deaf = true
	before := descriptors(t)
	if err := s.Reload(t.Context(), next); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("reload: %v, want EINVAL of a socket that does not listen", err)
	}
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before the reload", n, before)
	}
	if c := s.CurrentConfig(); len(c.Listeners) != 1 || len(c.Upstreams) != 1 {
		t.Errorf("in force is %+v, want the old configuration", c)
	}
	if n := len(s.Upstreams()); n != 1 {
		t.Errorf("%d upstreams, want the old one", n)
	}
	if a := s.Addrs("l"); len(a) != 1 || a[0].String() != addr {
		t.Errorf("listens on %v, want %s", a, addr)
	}
	deaf = false
	if err := s.Reload(t.Context(), next); err != nil {
		t.Errorf("the next reload: %v", err)
	}
}

// A server that is told to end while a reload is under way has no new sockets.
func TestReloadWhileClosing(t *testing.T) {
	testnet.Leaks(t)
	s := &Server{Config: reloadable("127.0.0.1:0", 0)}
	startServer(t, s)
	c := reloadable("127.0.0.1:0", 1)
	c.Listeners["more"] = Listener{Address: []string{"127.0.0.1:0"}, Upstream: "more-0"}
	if err := s.configuring.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	next, err := s.plan(t.Context(), c)
	if err == nil {
		err = next.prepare()
	}
	s.configuring.leave()
	if err != nil {
		t.Fatal(err)
	}
	s.close(false)
	if err := next.commit(t.Context()); err != ErrServerClosed {
		t.Errorf("commit: %v, want %v", err, ErrServerClosed)
	}
	next.discard()
	if s.Accepting() {
		t.Error("the server accepts")
	}
}
