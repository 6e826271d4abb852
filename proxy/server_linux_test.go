package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// A backend is a target that hands its connections to the test.
type backend struct {
	addr  proxy.Addr
	conns chan net.Conn
}

func newBackend(t *testing.T, addr proxy.Addr) *backend {
	t.Helper()
	ln, err := proxy.Listen(t.Context(), addr, proxy.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: boundAddr(ln), conns: make(chan net.Conn, 100)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.conns <- c
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
		close(b.conns)
		for c := range b.conns {
			_ = c.Close()
		}
	})
	return b
}

func (b *backend) next(t *testing.T) net.Conn {
	t.Helper()
	select {
	case c := <-b.conns:
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		return c
	case <-time.After(patience):
		t.Fatal("the target was not dialled")
		return nil
	}
}

func boundAddr(ln net.Listener) proxy.Addr {
	return proxy.Addr{Network: ln.Addr().Network(), Address: ln.Addr().String()}
}

// A way is how a server accepts from a listener.
type way func(net.Listener) net.Listener

// loops is the way of a listener as it is: the event loops accept and dial.
func loops(ln net.Listener) net.Listener { return ln }

// bothWays runs a test with the event loops accepting and dialling, and with
// goroutines that do: for a listener that gives no descriptor.
func bothWays(t *testing.T, f func(t *testing.T, w way)) {
	t.Run("loops", func(t *testing.T) { f(t, loops) })
	t.Run("goroutines", func(t *testing.T) {
		f(t, func(ln net.Listener) net.Listener { return struct{ net.Listener }{ln} })
	})
}

// A setup is a server of one listener, "relay", and one upstream, whose targets
// are tried in turn.
type setup struct {
	targets        []proxy.Addr
	engine         splice.Engine
	limits         proxy.Limits
	connectTimeout time.Duration
	maxConns       int
	hooks          proxy.Hooks
}

func (s setup) config(listen proxy.Addr) proxy.Config {
	u := proxy.Upstream{
		Balance: proxy.First, Attempts: len(s.targets), ConnectTimeout: proxy.Duration(s.connectTimeout),
		Ejection: proxy.Ejection{Off: true},
	}
	for _, a := range s.targets {
		u.Servers = append(u.Servers, proxy.Target{Address: a.String()})
	}
	return proxy.Config{
		MaxConnections: s.maxConns,
		Listeners: map[string]proxy.Listener{"relay": {
			Address: []string{listen.String()}, Upstream: "relay", Engine: s.engine, Limits: s.limits,
		}},
		Upstreams: map[string]proxy.Upstream{"relay": u},
	}
}

// A relay is a server that runs, and what it told.
type relay struct {
	*proxy.Server
	addr    proxy.Addr
	ended   chan proxy.Ended
	failed  chan proxy.Failed
	held    chan proxy.Held
	changed chan proxy.Change
}

func newRelay(t *testing.T, w way, listen proxy.Addr, su setup) *relay {
	t.Helper()
	return startRelay(t, w, su.config(listen), su.hooks)
}

// startRelay starts a server with a listener named relay.
func startRelay(t *testing.T, w way, c proxy.Config, hooks proxy.Hooks) *relay {
	t.Helper()
	r := &relay{
		ended:   make(chan proxy.Ended, 1000),
		failed:  make(chan proxy.Failed, 1000),
		held:    make(chan proxy.Held, 1000),
		changed: make(chan proxy.Change, 1000),
	}
	r.Server = &proxy.Server{
		Config: c,
		Hooks: proxy.Hooks{
			Ended: func(e proxy.Ended) {
				if hooks.Ended != nil {
					hooks.Ended(e)
				}
				r.ended <- e
			},
			Failed: func(f proxy.Failed) { r.failed <- f },
			Held: func(h proxy.Held) {
				select {
				case r.held <- h:
				default:
				}
			},
			Changed: func(c proxy.Change) { r.changed <- c },
		},
		Listen: func(ctx context.Context, addr proxy.Addr, o proxy.SocketOptions) ([]net.Listener, error) {
			ln, err := proxy.Listen(ctx, addr, o)
			if err != nil {
				return nil, err
			}
			return []net.Listener{w(ln)}, nil
		},
	}
	t.Cleanup(func() { _ = r.Close() })
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := r.Addrs("relay")[0]
	r.addr = proxy.Addr{Network: a.Network(), Address: a.String()}
	return r
}

func (r *relay) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(r.addr.Network, r.addr.Address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// dialDoomed returns what waits for the reset of a connection that can't be
// joined. It may be here before the dial has returned.
func (r *relay) dialDoomed(t *testing.T) (expectEnd func()) {
	t.Helper()
	c, err := net.DialTimeout(r.addr.Network, r.addr.Address, patience)
	if errors.Is(err, syscall.ECONNRESET) {
		return func() {}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return func() {
		t.Helper()
		expectReset(t, c)
	}
}

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("not told of %s", what)
		panic("unreachable")
	}
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("got %q, %v; want %q", b, err, want)
	}
}

func expectEnd(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("got %d bytes, %v; want the end", n, err)
	}
}

func expectReset(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %d bytes, %v; want a reset", n, err)
	}
}

func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func loopback(t *testing.T, network string) proxy.Addr {
	t.Helper()
	switch network {
	case "tcp6":
		ln, err := net.Listen("tcp6", "[::1]:0")
		if err != nil {
			t.Skipf("needs ::1: %v", err)
		}
		_ = ln.Close()
		return proxy.Addr{Network: "tcp", Address: "[::1]:0"}
	case "unix":
		return proxy.Addr{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}
	}
	return proxy.Addr{Network: "tcp", Address: "127.0.0.1:0"}
}

// dead returns the address of a port that refuses connections.
func dead(t *testing.T) proxy.Addr {
	t.Helper()
	// Bound and not listening: nobody else gets it meanwhile.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return proxy.Addr{Network: "tcp", Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*syscall.SockaddrInet4).Port)).String()}
}

func TestServe(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		for _, from := range []string{"tcp4", "tcp6", "unix"} {
			for _, to := range []string{"tcp4", "tcp6", "unix"} {
				t.Run(from+" to "+to, func(t *testing.T) {
					testnet.Leaks(t)
					b := newBackend(t, loopback(t, to))
					r := newRelay(t, w, loopback(t, from), setup{targets: []proxy.Addr{b.addr}})

					client := r.dial(t)
					send(t, client, "question")
					closeWrite(t, client)
					server := b.next(t)
					expect(t, server, "question")
					expectEnd(t, server)
					send(t, server, "the answer")
					_ = server.Close()
					expect(t, client, "the answer")
					expectEnd(t, client)

					e := receive(t, r.ended, "the end")
					if e.Result.AToB.Bytes != 8 || e.Result.BToA.Bytes != 10 || e.Result.AToB.Reason != splice.EOF || e.Result.BToA.Reason != splice.EOF {
						t.Errorf("ended with %v", e.Result)
					}
					wantClient, wantTarget := client.LocalAddr().String(), b.addr.String()
					if from == "unix" {
						wantClient = "unix"
					}
					if e.Client != wantClient || e.Target != wantTarget || e.ID != 1 {
						t.Errorf("connection %d from %s to %s, want 1 from %s to %s", e.ID, e.Client, e.Target, wantClient, wantTarget)
					}
					if err := r.Shutdown(t.Context()); err != nil {
						t.Error(err)
					}
					c := r.CurrentConfig()
					want := proxy.Stats{Accepted: 1, Ended: 1, MaxOpen: c.RoomForConns(), BytesToTarget: 8, BytesToClient: 10}
					if st := r.Stats(); st != want {
						t.Errorf("stats %+v, want %+v", st, want)
					}
				})
			}
		}
	})
}

func TestTargetsAreTriedInTurn(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		gone := proxy.Addr{Network: "unix", Address: filepath.Join(t.TempDir(), "none")}
		r := newRelay(t, w, loopback(t, "tcp4"), setup{targets: []proxy.Addr{dead(t), gone, b.addr}})
		client := r.dial(t)
		send(t, client, "x")
		expect(t, b.next(t), "x")
	})
}

// A name is resolved for each connection, not once.
func TestTargetByName(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		_, port, err := net.SplitHostPort(b.addr.Address)
		if err != nil {
			t.Fatal(err)
		}
		r := newRelay(t, w, loopback(t, "tcp4"), setup{
			targets: []proxy.Addr{{Network: "tcp", Address: "localhost:" + port}},
		})
		client := r.dial(t)
		send(t, client, "x")
		expect(t, b.next(t), "x")
		_ = client.Close()
		if e := r.Connections(); len(e) > 0 && e[0].Target != b.addr.Address {
			t.Errorf("target %s, want the address dialled, %s", e[0].Target, b.addr)
		}
	})
}

func TestNoTargetReached(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		targets := []proxy.Addr{dead(t), {Network: "unix", Address: filepath.Join(t.TempDir(), "none")}}
		r := newRelay(t, w, loopback(t, "tcp4"), setup{targets: targets})
		r.dialDoomed(t)()
		f := receive(t, r.failed, "the failure")
		if !errors.Is(f.Err, syscall.ECONNREFUSED) || !errors.Is(f.Err, syscall.ENOENT) {
			t.Errorf("error %v, want that of each target", f.Err)
		}
		for _, target := range targets {
			if !strings.Contains(f.Err.Error(), target.String()) {
				t.Errorf("error %q does not name %s", f.Err, target)
			}
		}
		if _, err := netip.ParseAddrPort(f.Client); err != nil {
			t.Errorf("client %q: %v", f.Client, err)
		}
		if err := r.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if st := r.Stats(); st.Failed != 1 || st.Open != 0 {
			t.Errorf("stats %+v, want one failed and none open", st)
		}
	})
}

func TestConnectTimeout(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		silent := testnet.NewSilent(t).Addr
		b := newBackend(t, loopback(t, "tcp4"))
		r := newRelay(t, w, loopback(t, "tcp4"), setup{
			targets:        []proxy.Addr{{Network: "tcp", Address: silent}, b.addr},
			connectTimeout: 200 * time.Millisecond,
		})
		start := time.Now()
		send(t, r.dial(t), "x")
		expect(t, b.next(t), "x")
		if took := time.Since(start); took < 200*time.Millisecond {
			t.Errorf("the second target was dialled after %v, want the connect timeout of the first", took)
		}
	})
}

func TestMaxConns(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		r := newRelay(t, w, loopback(t, "tcp4"), setup{targets: []proxy.Addr{b.addr}, maxConns: 1})
		first := r.dial(t)
		server := b.next(t)
		second := r.dial(t) // by the kernel alone
		send(t, second, "second")
		if h := receive(t, r.held, "the limit"); !errors.Is(h.Err, proxy.ErrConnLimit) || h.Addr.String() != r.addr.Address {
			t.Errorf("held: %v at %v, want %v at %v", h.Err, h.Addr, proxy.ErrConnLimit, r.addr)
		}
		// The first goes on as if nothing were.
		send(t, first, "first")
		expect(t, server, "first")
		if st := r.Stats(); st.Accepted != 1 || st.Open != 1 || st.Joined != 1 {
			t.Errorf("stats %+v, want one connection", st)
		}
		_ = first.Close()
		expectEnd(t, server)
		_ = server.Close()
		expect(t, b.next(t), "second")
	})
}

func TestShutdownWaits(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		r := newRelay(t, w, loopback(t, "tcp4"), setup{targets: []proxy.Addr{b.addr}})
		client := r.dial(t)
		server := b.next(t)
		ctx, cancel := context.WithCancel(t.Context())
		down := make(chan error)
		go func() { down <- r.Shutdown(ctx) }()
		// The listener goes first.
		settled(func() int { return len(r.Addrs("relay")) }, 0)
		if c, err := net.Dial("tcp", r.addr.Address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v, %v; want %v", c, err, syscall.ECONNREFUSED)
		}
		if r.Accepting() {
			t.Error("accepting during the shutdown")
		}
		send(t, client, "still here")
		expect(t, server, "still here")
		cancel()
		if err := <-down; !errors.Is(err, context.Canceled) {
			t.Errorf("Shutdown: %v, want %v", err, context.Canceled)
		}
		send(t, server, "and still")
		expect(t, client, "and still")
		go func() { down <- r.Shutdown(t.Context()) }()
		_ = client.Close()
		expectEnd(t, server)
		_ = server.Close()
		if err := <-down; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

func TestCloseResets(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		r := newRelay(t, w, loopback(t, "tcp4"), setup{targets: []proxy.Addr{b.addr}})
		client := r.dial(t)
		server := b.next(t)
		send(t, client, "x")
		expect(t, server, "x")
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		expectReset(t, client)
		expectReset(t, server)
		e := receive(t, r.ended, "the end")
		if e.Result.AToB.Reason != splice.Stopped || e.Result.BToA.Reason != splice.Stopped {
			t.Errorf("ended with %v, want stopped", e.Result)
		}
	})
}

func TestCloseEndsDials(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		// 192.0.2.0/24 leads nowhere; where even that is known at once, the dial
		// has failed before Close, which is as good.
		r := newRelay(t, w, loopback(t, "tcp4"), setup{
			targets:        []proxy.Addr{{Network: "tcp", Address: "192.0.2.1:9"}},
			connectTimeout: time.Hour,
		})
		expectEnd := r.dialDoomed(t)
		settled(func() int { return int(r.Stats().Accepted) }, 1)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		expectEnd()
		receive(t, r.failed, "the failure")
	})
}

func TestConnections(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		r := newRelay(t, w, loopback(t, "tcp4"), setup{targets: []proxy.Addr{b.addr}})
		if got := r.Connections(); len(got) != 0 {
			t.Errorf("connections %v before there was any", got)
		}
		client := r.dial(t)
		server := b.next(t)
		send(t, client, "12345")
		expect(t, server, "12345")
		send(t, server, "678")
		expect(t, client, "678")

		// Live: both are open. A byte arrives a moment before it is counted.
		settled(func() int { return int(r.Stats().BytesToClient) }, 3)
		got := r.Connections()
		if len(got) != 1 || got[0].Stats.AToB.Bytes != 5 || got[0].Stats.BToA.Bytes != 3 || got[0].Client != client.LocalAddr().String() {
			t.Errorf("connections %+v, want one with 5 and 3 bytes", got)
		}
		if st := r.Stats(); st.BytesToTarget != 5 || st.BytesToClient != 3 || st.Joined != 1 {
			t.Errorf("stats %+v, want 5 and 3 bytes", st)
		}
		local := server.RemoteAddr().(*net.TCPAddr).AddrPort()
		if c, ok := r.ByLocal(t.Context(), local); !ok || c.ID != got[0].ID {
			t.Errorf("by %v: %v, %v", local, c, ok)
		}
		if c, ok := r.ByLocal(t.Context(), netip.MustParseAddrPort("127.0.0.1:1")); ok {
			t.Errorf("by somebody else's address: %v", c)
		}
	})
}

func TestOptionsReachTheSession(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		r := newRelay(t, w, loopback(t, "tcp4"), setup{
			targets: []proxy.Addr{b.addr},
			engine:  splice.EngineCopy,
			limits:  proxy.Limits{BytesToServer: 3, BytesToClient: 4},
		})
		client := r.dial(t)
		server := b.next(t)
		send(t, client, "abcdefgh")
		send(t, server, "12345678")
		expect(t, server, "abc")
		expect(t, client, "1234")
		e := receive(t, r.ended, "the end")
		if e.Result.AToB.Reason != splice.Max || e.Result.BToA.Reason != splice.Max || e.Stats.AToB.Engine != splice.EngineCopy {
			t.Errorf("ended with %v, %+v", e.Result, e.Stats)
		}
	})
}

// A joined pair costs two descriptors and no goroutine.
func TestCostOfAPair(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		r := newRelay(t, w, loopback(t, "tcp4"), setup{targets: []proxy.Addr{b.addr}})
		join := func() {
			client := r.dial(t)
			server := b.next(t)
			send(t, client, "x")
			expect(t, server, "x")
		}
		join() // the event loops start with the first
		join()
		goroutines, files := runtime.NumGoroutine(), openFiles(t)
		const pairs = 50
		for range pairs {
			join()
		}
		// The client's and the server's end are this process's too.
		if got := settled(func() int { return openFiles(t) }, files+4*pairs); got != files+4*pairs {
			t.Errorf("%d descriptors for %d pairs, want %d", got-files, pairs, 4*pairs)
		}
		if got := settled(runtime.NumGoroutine, goroutines); got > goroutines {
			t.Errorf("%d goroutines more for %d pairs", got-goroutines, pairs)
		}
	})
}

// settled asks until the answer is the one that is wanted, or it is too late.
func settled(ask func() int, want int) int {
	deadline := time.Now().Add(patience)
	for {
		got := ask()
		if got == want || time.Now().After(deadline) {
			return got
		}
		runtime.Gosched()
	}
}

// A hook that blocks holds back no byte of others.
func TestSlowHook(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		release := make(chan struct{})
		var once sync.Once
		defer once.Do(func() { close(release) })
		r := newRelay(t, w, loopback(t, "tcp4"), setup{
			targets: []proxy.Addr{b.addr},
			hooks:   proxy.Hooks{Ended: func(proxy.Ended) { <-release }},
		})
		for range 3 {
			client := r.dial(t)
			server := b.next(t)
			send(t, client, "bytes")
			expect(t, server, "bytes")
			_ = client.Close()
			expectEnd(t, server)
			_ = server.Close()
		}
		if st := r.Stats(); st.Open == 0 {
			t.Errorf("stats %+v, want connections open whose end is not told yet", st)
		}
		once.Do(func() { close(release) })
		for range 3 {
			receive(t, r.ended, "an end")
		}
	})
}

func TestStartAfterClose(t *testing.T) {
	testnet.Leaks(t)
	s := &proxy.Server{Config: setup{targets: []proxy.Addr{{Network: "tcp", Address: "127.0.0.1:1"}}}.config(loopback(t, "tcp4"))}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); !errors.Is(err, proxy.ErrServerClosed) {
		t.Errorf("Start: %v, want %v", err, proxy.ErrServerClosed)
	}
}

// Many at once, all kinds of ends, and every one is told once.
func TestManyConnections(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		var wg sync.WaitGroup
		t.Cleanup(wg.Wait) // after the backend, which ends the echoes
		b := newBackend(t, loopback(t, "tcp4"))
		r := newRelay(t, w, loopback(t, "tcp4"), setup{targets: []proxy.Addr{b.addr}, maxConns: 20})
		const clients = 200
		for range 8 {
			wg.Go(func() {
				for c := range b.conns {
					_, _ = io.Copy(c, c)
					_ = c.Close()
				}
			})
		}
		for i := range clients {
			wg.Go(func() {
				c, err := net.Dial("tcp", r.addr.Address)
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				if _, err := io.WriteString(c, "hello"); err != nil {
					t.Error(err)
					return
				}
				if i%3 == 0 {
					_ = c.(*net.TCPConn).SetLinger(0)
					return // a reset, at any moment
				}
				_ = c.(*net.TCPConn).CloseWrite()
				if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
					t.Errorf("echo %q, %v", got, err)
				}
			})
		}
		ids := make(map[uint64]bool)
		for range clients {
			select {
			case e := <-r.ended:
				if ids[e.ID] {
					t.Errorf("the end of connection %d was told twice", e.ID)
				}
				ids[e.ID] = true
			case f := <-r.failed: // reset before it was joined
				if f.Reason != proxy.ClientLeft {
					t.Errorf("failed: %s, %v", f.Reason, f.Err)
				}
			case <-time.After(patience):
				t.Fatalf("%d of %d ends were told", len(ids), clients)
			}
		}
		if err := r.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if st := r.Stats(); st.Accepted != clients || st.Ended+st.Failed != clients || st.Open != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}
