package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

func (r *relay) addresses() (list []proxy.Addr) {
	for _, a := range r.Addrs("relay") {
		list = append(list, proxy.Addr{Network: a.Network(), Address: a.String()})
	}
	return list
}

// A listener has clients come by each of its addresses, those of both families where
// it listens on every one; a reload can take one away.
func TestSeveralAddresses(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		file := "unix:" + filepath.Join(t.TempDir(), "s")
		c := oneUpstream(proxy.Upstream{Servers: proxy.Targets(b.addr.Address)})
		listen := func(addresses ...string) proxy.Config {
			l := c.Listeners["relay"]
			l.Address = addresses
			c.Listeners = map[string]proxy.Listener{"relay": l}
			return c
		}
		r := startRelay(t, w, listen("127.0.0.1:0", loopback(t, "tcp6").Address, ":0", file), proxy.Hooks{})
		all := r.addresses()
		if len(all) != 4 {
			t.Fatalf("it listens on %v", all)
		}
		_, port, err := net.SplitHostPort(all[2].Address)
		if err != nil {
			t.Fatal(err)
		}
		ways := []proxy.Addr{all[0], all[1], {Network: "tcp", Address: "127.0.0.2:" + port}, {Network: "tcp", Address: "[::1]:" + port}, all[3]}
		for i, a := range ways {
			client, err := net.DialTimeout(a.Network, a.Address, patience)
			if err != nil {
				t.Fatal(err)
			}
			_ = client.SetDeadline(time.Now().Add(patience))
			send(t, client, a.Address)
			server := b.next(t)
			expect(t, server, a.Address)
			_ = client.Close()
			expectEnd(t, server)
			_ = server.Close()
			receive(t, r.ended, "the end")
			if st := r.Listeners()[0]; st.Accepted != uint64(i+1) {
				t.Errorf("%d clients are counted, want %d", st.Accepted, i+1)
			}
		}
		if err := r.Reload(t.Context(), listen("127.0.0.1:0", file)); err != nil {
			t.Fatal(err)
		}
		settled(func() int { return len(r.addresses()) }, 2)
		if left := r.addresses(); fmt.Sprint(left) != fmt.Sprint([]proxy.Addr{all[0], all[3]}) {
			t.Errorf("after the reload it listens on %v, before on %v", left, all)
		}
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // it is closed by those who have listened
			conn, err := net.DialTimeout("tcp", ways[3].Address, patience)
			if errors.Is(err, syscall.ECONNREFUSED) {
				break
			}
			if err == nil {
				_ = conn.Close()
			}
			if time.Now().After(end) {
				t.Fatalf("an address that is gone: %v", err)
			}
		}
	})
}

// listening finds the descriptor of this process that listens at a TCP address.
func listening(t *testing.T, address string) int {
	t.Helper()
	want := netip.MustParseAddrPort(address)
	for fd := range 4096 {
		if sa, err := syscall.Getsockname(fd); err != nil {
			continue
		} else if in, ok := sa.(*syscall.SockaddrInet4); !ok || netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)) != want {
			continue
		}
		if on, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err == nil && on == 1 {
			return fd
		}
	}
	t.Fatalf("nothing listens at %s", address)
	return -1
}

// queueLength is that of a TCP socket which listens: tcpi_sacked of its struct
// tcp_info (tcp_get_info in net/ipv4/tcp.c).
func queueLength(t *testing.T, fd int) int {
	t.Helper()
	const sacked = 28 / 4
	var info [64]uint32
	size := uint32(unsafe.Sizeof(info))
	if _, _, e := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0); e != 0 {
		t.Fatalf("TCP_INFO: %v", e)
	}
	return int(info[sacked])
}

// The kernel keeps as many clients as the backlog says; without one, as many as the
// system allows.
func TestBacklog(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		for _, backlog := range []int{7, 0} {
			file := "unix:" + filepath.Join(t.TempDir(), "s")
			c := oneUpstream(proxy.Upstream{Servers: proxy.Targets("127.0.0.1:1")})
			c.Listeners["relay"] = proxy.Listener{
				Address: []string{"127.0.0.1:0", file}, Upstream: "u", Socket: proxy.SocketOptions{Backlog: backlog},
			}
			r := startRelay(t, w, c, proxy.Hooks{})
			if got := queueLength(t, listening(t, r.addr.Address)); backlog > 0 && got != backlog || backlog == 0 && got < 128 {
				t.Errorf("a backlog of %d is one of %d in the kernel", backlog, got)
			}
			_ = r.Close()
		}
	})
	// A unix socket tells nobody how long its queue is.
	testnet.Leaks(t)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := proxy.Listen(t.Context(), proxy.Addr{Network: "unix", Address: path}, proxy.SocketOptions{Backlog: 7})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	waiting := 0
	for ; waiting < 100; waiting++ {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err == syscall.EAGAIN {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if waiting != 8 { // the kernel takes one more
		t.Errorf("%d clients wait at a unix socket with a backlog of 7", waiting)
	}
}

// With reuse_port several servers share an address, and each is sent some of the
// clients; without it the second can't start. A reload can't change it.
func TestReusePort(t *testing.T) {
	testnet.Leaks(t)
	at := func(address string, reuse bool) proxy.Config {
		c := oneUpstream(proxy.Upstream{Servers: proxy.Targets(newNamed(t, "127.0.0.1:0", "x").addr)})
		c.Listeners["relay"] = proxy.Listener{Address: []string{address}, Upstream: "u", Socket: proxy.SocketOptions{ReusePort: reuse}}
		return c
	}
	one := startRelay(t, loops, at("127.0.0.1:0", true), proxy.Hooks{})
	two := startRelay(t, loops, at(one.addr.Address, true), proxy.Hooks{})
	accepted := func(r *relay) uint64 { return r.Listeners()[0].Accepted }
	// The kernel spreads them by a hash: that one of the two has none of a hundred does
	// not happen.
	for range 100 {
		_, c := one.ask(t)
		_ = c.Close()
	}
	if a, b := accepted(one), accepted(two); a+b != 100 || a == 0 || b == 0 {
		t.Errorf("%d and %d clients, want a hundred in all", a, b)
	}
	for name, c := range map[string]proxy.Config{"another without": at(one.addr.Address, false)} {
		s := &proxy.Server{Config: c}
		if err := s.Start(t.Context()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "listener relay: listen on "+one.addr.Address) {
			t.Errorf("%s: %v", name, err)
		}
		_ = s.Close()
	}
	if err := two.Reload(t.Context(), at(one.addr.Address, false)); err == nil || !strings.Contains(err.Error(), "socket options of "+one.addr.Address+" can't change") {
		t.Errorf("a reload to other options: %v", err)
	}
}

// Multipath TCP is spoken with whoever asks for it if it is on; the engine wire is
// refused then, and says why.
func TestMPTCP(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		enabled, _ := os.ReadFile("/proc/sys/net/mptcp/enabled") // else connections are of plain TCP
		has := string(enabled) == "1\n"
		for _, on := range []bool{true, false} {
			b := newBackend(t, loopback(t, "tcp4"))
			c := oneUpstream(proxy.Upstream{Servers: proxy.Targets(b.addr.Address)})
			c.Listeners["relay"] = proxy.Listener{Address: []string{"127.0.0.1:0"}, Upstream: "u", Socket: proxy.SocketOptions{MPTCP: on}}
			r := startRelay(t, w, c, proxy.Hooks{})
			for _, asks := range []bool{true, false} {
				d := net.Dialer{Timeout: patience}
				d.SetMultipathTCP(asks)
				client, err := d.DialContext(t.Context(), "tcp", r.addr.Address)
				if err != nil {
					t.Fatal(err)
				}
				_ = client.SetDeadline(time.Now().Add(patience))
				send(t, client, "hello")
				server := b.next(t)
				expect(t, server, "hello")
				if got, err := client.(*net.TCPConn).MultipathTCP(); err != nil || got != (on && asks && has) {
					t.Errorf("mptcp %v, a client that asks: %v: Multipath TCP is %v, %v", on, asks, got, err)
				}
				send(t, server, "answer")
				closeWrite(t, server)
				expect(t, client, "answer")
				expectEnd(t, client)
				_ = client.Close()
				expectEnd(t, server)
				_ = server.Close()
				if e := receive(t, r.ended, "the end"); e.Result.AToB.Bytes != 5 || e.Result.BToA.Bytes != 6 || e.Result.Err() != nil {
					t.Errorf("mptcp %v, a client that asks: %v: ended %v", on, asks, e.Result)
				}
			}
			_ = r.Close()
		}
	})
}

// A listener that is full has its own clients wait, and nobody else's.
func TestListenerLimit(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		c := oneUpstream(proxy.Upstream{Servers: proxy.Targets(b.addr.Address)})
		c.Listeners["relay"] = proxy.Listener{Address: []string{"127.0.0.1:0"}, Upstream: "u", MaxConnections: 1}
		c.Listeners["other"] = proxy.Listener{Address: []string{"127.0.0.1:0"}, Upstream: "u"}
		r := startRelay(t, w, c, proxy.Hooks{})
		first := r.dial(t)
		send(t, first, "first")
		server := b.next(t)
		expect(t, server, "first")
		second := r.dial(t)
		send(t, second, "second")
		if h := receive(t, r.held, "the limit"); !errors.Is(h.Err, proxy.ErrConnLimit) || h.Addr.String() != r.addr.Address {
			t.Errorf("held: %v at %v", h.Err, h.Addr)
		}
		for range 3 {
			elsewhere, err := net.DialTimeout("tcp", r.Addrs("other")[0].String(), patience)
			if err != nil {
				t.Fatal(err)
			}
			defer elsewhere.Close()
			send(t, elsewhere, "elsewhere")
			expect(t, b.next(t), "elsewhere")
		}
		_ = first.Close()
		expectEnd(t, server)
		_ = server.Close()
		expect(t, b.next(t), "second")
	})
}

// A proxy that speaks for itself (LOCAL) is the client; one that does not say in time
// for whom it comes is reset; with trusted proxies those of a unix socket are some.
func TestPROXYLocal(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		file := filepath.Join(t.TempDir(), "s")
		n := newTown(t, w, proxy.Listener{
			Address: []string{"127.0.0.1:0", "unix:" + file}, ProxyFrom: prefixes(t, "127.0.0.0/8"), Upstream: "a",
			HandshakeTimeout: proxy.Timeout(time.Second),
		}, "a")
		const signature = "\r\n\r\n\x00\r\nQUIT\n"
		pass := func(c net.Conn, header string) string {
			t.Helper()
			send(t, c, header+"hello")
			b := n.backends["a"].next(t)
			expect(t, b, "hello")
			_ = c.Close()
			expectEnd(t, b)
			_ = b.Close()
			return receive(t, n.ended, "the end").Client
		}
		for _, header := range []string{
			signature + "\x20\x00\x00\x00",                                                 // LOCAL
			signature + "\x20\x00\x00\x04\xe0\x00\x01x",                                    // with a value
			signature + "\x20\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x08\x03\xe8\x01\xbb", // with addresses, which do not count
		} {
			c := n.dial(t)
			if got, want := pass(c, header), c.LocalAddr().String(); got != want {
				t.Errorf("%q: the client is %s, want %s", header, got, want)
			}
		}
		c, err := net.Dial("unix", file)
		if err != nil {
			t.Fatal(err)
		}
		if got := pass(c, "PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\n"); got != "192.0.2.7:1000" {
			t.Errorf("behind a unix socket the client is %s", got)
		}
		var late []net.Conn
		for _, part := range []string{"", "PROXY TCP4 192.0"} {
			c := n.dial(t)
			send(t, c, part)
			late = append(late, c)
		}
		for _, c := range late {
			if f := receive(t, n.failed, "the failure"); f.Reason != proxy.HandshakeTimeout || f.After < 900*time.Millisecond {
				t.Errorf("%s after %v, %v", f.Reason, f.After, f.Err)
			}
			expectReset(t, c)
		}
	})
}

// Each limit of a connection ends it, and says that it has.
func TestLimitsOfConnections(t *testing.T) {
	const limit = 600 * time.Millisecond // in which the test has to say a word
	bothWays(t, func(t *testing.T, w way) {
		for name, tt := range map[string]struct {
			limits proxy.Limits
			want   splice.Reason
			half   bool // the client has ended its direction
		}{
			"idle":       {proxy.Limits{Idle: proxy.Timeout(limit)}, splice.Idle, false},
			"half-close": {proxy.Limits{HalfClose: proxy.Timeout(limit)}, splice.HalfClosed, true},
			"lifetime":   {proxy.Limits{Lifetime: proxy.Timeout(limit), LifetimeJitter: -1}, splice.Lifetime, false},
		} {
			t.Run(name, func(t *testing.T) {
				testnet.Leaks(t)
				n := newTown(t, w, proxy.Listener{Limits: tt.limits, Upstream: "a"}, "a")
				begun := time.Now()
				c := n.dial(t)
				b := n.backends["a"].next(t)
				said := int64(0)
				if tt.want != splice.Lifetime { // which nothing that is said makes longer
					send(t, c, "x")
					expect(t, b, "x")
					said = 1
				}
				if tt.half {
					closeWrite(t, c)
					expectEnd(t, b)
				}
				e := receive(t, n.ended, "the end")
				if e.Result.BToA.Reason != tt.want || e.Result.AToB.Bytes != said || time.Since(begun) < limit {
					t.Errorf("ended by %v after %v, want %v", e.Result.BToA.Reason, time.Since(begun), tt.want)
				}
				// Nothing is lost where nothing moves: only a lifetime is no clean end.
				if _, err := io.Copy(io.Discard, c); errors.Is(err, syscall.ECONNRESET) != (tt.want == splice.Lifetime) {
					t.Errorf("the client sees %v", err)
				}
			})
		}
	})
}

// Lifetimes are not all the same: of forty connections that live for ten seconds more
// or less one does not for long.
func TestLifetimesDiffer(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		_, u := trio(t)
		c := oneUpstream(u)
		l := c.Listeners["relay"]
		l.Limits = proxy.Limits{Lifetime: proxy.Timeout(10 * time.Second), LifetimeJitter: 100}
		c.Listeners["relay"] = l
		r := startRelay(t, w, c, proxy.Hooks{})
		for range 40 {
			r.ask(t)
		}
		e := receive(t, r.ended, "an end")
		if lived := e.Result.Ended.Sub(e.Result.Stats.Started); e.Result.AToB.Reason != splice.Lifetime || lived > 9*time.Second {
			t.Errorf("the first has ended by %v after %v", e.Result.AToB.Reason, lived)
		}
	})
}

// More connections than there are descriptors for are not allowed.
func TestMoreConnectionsThanDescriptors(t *testing.T) {
	testnet.Leaks(t)
	c := oneUpstream(proxy.Upstream{Servers: proxy.Targets("127.0.0.1:1")})
	room := c.RoomForConns()
	for _, tt := range []struct{ asked, want int }{{0, room}, {1 << 30, room}, {5, 5}} {
		c.MaxConnections = tt.asked
		r := startRelay(t, loops, c, proxy.Hooks{})
		if got := r.Stats().MaxOpen; got != tt.want {
			t.Errorf("with max_connections: %d there may be %d, want %d", tt.asked, got, tt.want)
		}
		_ = r.Close()
	}
}

// A start whose address is taken says which listener's, and leaves nothing behind: it
// may be tried again.
func TestStartInUse(t *testing.T) {
	testnet.Leaks(t)
	taken := newNamed(t, "127.0.0.1:0", "x")
	file := filepath.Join(t.TempDir(), "s")
	c := oneUpstream(proxy.Upstream{Servers: proxy.Targets("127.0.0.1:1")})
	c.Listeners["relay"] = proxy.Listener{Address: []string{"unix:" + file, taken.addr}, Upstream: "u"}
	s := &proxy.Server{Config: c}
	if err := s.Start(context.Background()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "listener relay: listen on "+taken.addr) {
		t.Errorf("start: %v", err)
	}
	taken.close()
	again := &proxy.Server{Config: c}
	if err := again.Start(context.Background()); err != nil {
		t.Errorf("start again: %v", err)
	}
	_ = again.Close()
}

// Run serves until its context ends, and drains then: who is there may stay.
func TestRun(t *testing.T) {
	testnet.Leaks(t)
	server := newNamed(t, "127.0.0.1:0", "s")
	c := oneUpstream(proxy.Upstream{Servers: proxy.Targets(server.addr)})
	c.Drain = proxy.Drain{Timeout: proxy.Timeout(time.Hour)}
	s := &proxy.Server{Config: c}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	settled(func() int { return len(s.Addrs("relay")) }, 1)
	client, err := net.DialTimeout("tcp", s.Addrs("relay")[0].String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	_ = client.SetDeadline(time.Now().Add(patience))
	expect(t, client, "s")
	cancel()
	settled(func() int { return len(s.Addrs("relay")) }, 0)
	send(t, client, "still here")
	select {
	case err := <-done:
		t.Errorf("it has ended with a connection: %v", err)
	default:
	}
	_ = client.Close()
	if err := receive(t, done, "the end"); err != nil {
		t.Error(err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, proxy.ErrServerClosed) {
		t.Errorf("again: %v", err)
	}
}

// Of a client that has no address a server is told that it is not known.
func TestSendProxyOfUnixClient(t *testing.T) {
	testnet.Leaks(t)
	for _, version := range []proxy.ProxyVersion{"v1", "v2"} {
		b := newBackend(t, loopback(t, "tcp4"))
		r := startRelay(t, loops, proxy.Config{
			Listeners: map[string]proxy.Listener{"relay": {Address: []string{"unix:" + filepath.Join(t.TempDir(), "s")}, Upstream: "u"}},
			Upstreams: map[string]proxy.Upstream{"u": {Servers: proxy.Targets(b.addr.String()), SendProxy: version}},
		}, proxy.Hooks{})
		c := r.dial(t)
		send(t, c, "hello")
		server := b.next(t)
		if h := readHeader(t, server); h.Source.IsValid() || fmt.Sprintf("v%d", h.Version) != string(version) {
			t.Errorf("%s: %+v", version, h)
		}
		expect(t, server, "hello")
	}
}
