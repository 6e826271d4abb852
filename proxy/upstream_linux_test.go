package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// A named server says its name to whoever connects and waits for the end.
type namedServer struct {
	addr string
	ln   net.Listener
	once sync.Once
	done chan struct{}
}

func newNamed(t *testing.T, addr, name string) *namedServer {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return serveNamed(t, ln, name)
}

// samePort starts two servers, a and b, with one port at two addresses of this machine.
func samePort(t *testing.T, hostA, a, hostB, b string) (port string) {
	t.Helper()
	const attempts = 100 // somebody may have the port that is free at the one at the other
	for range attempts {
		atA, err := net.Listen("tcp", net.JoinHostPort(hostA, "0"))
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ = net.SplitHostPort(atA.Addr().String())
		atB, err := net.Listen("tcp", net.JoinHostPort(hostB, port))
		if err == nil {
			serveNamed(t, atA, a)
			serveNamed(t, atB, b)
			return port
		}
		_ = atA.Close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	t.Fatalf("no port is free at both %s and %s", hostA, hostB)
	return ""
}

func serveNamed(t *testing.T, ln net.Listener, name string) *namedServer {
	t.Helper()
	n := &namedServer{addr: ln.Addr().String(), ln: ln, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		var wg sync.WaitGroup
		defer wg.Wait()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = io.WriteString(c, name)
				_, _ = io.Copy(io.Discard, c)
			})
		}
	}()
	t.Cleanup(n.close)
	return n
}

// close ends it once its clients have gone.
func (n *namedServer) close() {
	n.once.Do(func() { _ = n.ln.Close() })
	<-n.done
}

// trio is three servers named a, b and c, and their upstream.
func trio(t *testing.T) ([]*namedServer, proxy.Upstream) {
	t.Helper()
	servers := []*namedServer{newNamed(t, "127.0.0.1:0", "a"), newNamed(t, "127.0.0.1:0", "b"), newNamed(t, "127.0.0.1:0", "c")}
	return servers, proxy.Upstream{Servers: proxy.Targets(servers[0].addr, servers[1].addr, servers[2].addr)}
}

func oneUpstream(u proxy.Upstream) proxy.Config {
	return proxy.Config{
		Listeners: map[string]proxy.Listener{"relay": {Address: []string{"127.0.0.1:0"}, Upstream: "u"}},
		Upstreams: map[string]proxy.Upstream{"u": u},
	}
}

// ask connects and returns the name of the server, and the connection.
func (r *relay) ask(t *testing.T) (string, net.Conn) {
	t.Helper()
	c := r.dial(t)
	b := make([]byte, 1)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return string(b), c
}

// tally asks n times, one after the other.
func (r *relay) tally(t *testing.T, n int) map[string]int {
	t.Helper()
	got := make(map[string]int)
	for range n {
		name, c := r.ask(t)
		got[name]++
		_ = c.Close()
	}
	return got
}

func TestBalance(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		for _, tc := range []struct {
			balance proxy.Balance
			weights [3]int
			want    func(map[string]int) bool
		}{
			{proxy.RoundRobin, [3]int{1, 1, 1}, func(m map[string]int) bool { return m["a"] == 20 && m["b"] == 20 && m["c"] == 20 }},
			{proxy.RoundRobin, [3]int{3, 2, 1}, func(m map[string]int) bool { return m["a"] == 30 && m["b"] == 20 && m["c"] == 10 }},
			{proxy.First, [3]int{1, 1, 1}, func(m map[string]int) bool { return m["a"] == 60 }},
			{proxy.LeastConnections, [3]int{1, 1, 1}, func(m map[string]int) bool { return m["a"] > 5 && m["b"] > 5 && m["c"] > 5 }},
			{proxy.RandomTwo, [3]int{1, 1, 1}, func(m map[string]int) bool { return m["a"] > 3 && m["b"] > 3 && m["c"] > 3 }},
			{proxy.Maglev, [3]int{1, 1, 1}, func(m map[string]int) bool { return len(m) == 1 }}, // one client
		} {
			t.Run(fmt.Sprint(tc.balance, tc.weights), func(t *testing.T) {
				testnet.Leaks(t)
				_, u := trio(t)
				u.Balance = tc.balance
				for i, weight := range tc.weights {
					u.Servers[i].Weight = weight
				}
				r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
				if got := r.tally(t, 60); !tc.want(got) {
					t.Errorf("got %v", got)
				}
			})
		}
	})
}

// The least busy is chosen, also while connections last.
func TestLeastConnections(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		_, u := trio(t)
		u.Balance = proxy.LeastConnections
		u.Servers[2].Weight = 2
		r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		got := make(map[string]int)
		for range 20 {
			name, _ := r.ask(t)
			got[name]++
		}
		if want := map[string]int{"a": 5, "b": 5, "c": 10}; !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// A client is not told that a server is broken while another is not; that one is
// found out, and taken out.
func TestFailoverAndEjection(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		_, u := trio(t)
		u.Servers[0].Address = dead(t).Address
		u.Ejection = proxy.Ejection{Failures: 3, Time: proxy.Duration(time.Hour), MaxTime: proxy.Duration(time.Hour)}
		r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		got := r.tally(t, 30)
		if got["b"]+got["c"] != 30 {
			t.Errorf("got %v", got)
		}
		c := receive(t, r.changed, "the ejection")
		if c.What != proxy.Ejected || c.Server != u.Servers[0].Address || c.Err == nil || c.Upstream != "u" {
			t.Errorf("change %+v", c)
		}
		st := r.Upstreams()[0].Servers
		if st[0].State != proxy.ServerEjected || st[0].ConnectFailed < 3 || st[1].State != proxy.ServerUnchecked {
			t.Errorf("servers %+v", st)
		}
		failed := st[0].ConnectFailed
		r.tally(t, 10)
		if again := r.Upstreams()[0].Servers[0].ConnectFailed; again != failed {
			t.Errorf("an ejected server was tried %d times", again-failed)
		}
	})
}

// The last server is never taken out.
func TestLastIsNotEjected(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		address := dead(t).Address
		u := proxy.Upstream{Servers: proxy.Targets(address), Ejection: proxy.Ejection{Failures: 1}}
		r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		for range 5 {
			r.dialDoomed(t)()
		}
		settled(func() int { return int(r.Stats().Failed) }, 5)
		if st := r.Upstreams()[0].Servers[0]; st.State != proxy.ServerUnchecked || st.ConnectFailed != 5 {
			t.Errorf("server %+v", st)
		}
	})
}

// A server that resets clients before its first byte is found out too.
func TestEarlyResets(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 1)) // joined by then
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
			}
		}()
		t.Cleanup(func() { _ = ln.Close(); <-done })
		good := newNamed(t, "127.0.0.1:0", "g")
		u := proxy.Upstream{
			Servers:  proxy.Targets(ln.Addr().String(), good.addr),
			Balance:  proxy.First,
			Ejection: proxy.Ejection{Failures: 3, EarlyReset: proxy.Timeout(time.Minute), Time: proxy.Duration(time.Hour), MaxTime: proxy.Duration(time.Hour)},
		}
		r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		for range 3 {
			c := r.dial(t)
			send(t, c, "x")
			expectReset(t, c)
			receive(t, r.ended, "the end")
		}
		if c := receive(t, r.changed, "the ejection"); c.What != proxy.Ejected || !strings.Contains(c.Err.Error(), "before the first byte") {
			t.Errorf("change %+v", c)
		}
		if got := r.tally(t, 3); got["g"] != 3 {
			t.Errorf("got %v", got)
		}
		// A reset that comes later is none.
		u.Ejection.EarlyReset, u.Ejection.Failures = 1, 1
		late := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		for range 3 {
			c := late.dial(t)
			send(t, c, "x")
			expectReset(t, c)
			receive(t, late.ended, "the end")
		}
		if s := late.Upstreams()[0].Servers[0]; s.Ejected || s.EarlyResets > 0 || s.Connected != 3 {
			t.Errorf("after late resets: %+v", s)
		}
	})
}

func TestBackup(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		servers, u := trio(t)
		u.Servers[2].Backup = true
		u.Ejection.Off = true
		u.Health = &proxy.Health{Interval: proxy.Duration(20 * time.Millisecond), Fall: 1, Rise: 1}
		r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		if got := r.tally(t, 10); got["c"] != 0 {
			t.Errorf("got %v while others are up", got)
		}
		servers[0].close()
		servers[1].close()
		for down := 0; down < 2; {
			if c := receive(t, r.changed, "a server that is down"); c.What == proxy.Down {
				down++
			}
		}
		if got := r.tally(t, 10); got["c"] != 10 {
			t.Errorf("got %v, want the backup alone", got)
		}
		newNamed(t, servers[0].addr, "a")
		for {
			if c := receive(t, r.changed, "a server that is up"); c.What == proxy.Up {
				break
			}
		}
		if got := r.tally(t, 10); got["a"] != 10 {
			t.Errorf("got %v, want the one that is up again", got)
		}
	})
}

// What becomes of the connections of a server that goes down.
func TestOnDown(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		for _, rule := range []proxy.SessionRule{proxy.KeepSessions, proxy.DrainSessions, proxy.CloseSessions} {
			t.Run(string(rule), func(t *testing.T) {
				testnet.Leaks(t)
				var sick atomic.Bool
				b := newBackend(t, loopback(t, "tcp4"))
				check := newStatus(t, &sick)
				_, port, err := net.SplitHostPort(check)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				if _, err := fmt.Sscan(port, &n); err != nil {
					t.Fatal(err)
				}
				u := proxy.Upstream{
					Servers: proxy.Targets(b.addr.Address), OnDown: rule, DrainTime: proxy.Timeout(50 * time.Millisecond),
					Health: &proxy.Health{Interval: proxy.Duration(20 * time.Millisecond), Fall: 2, Port: n, HTTP: &proxy.HTTPCheck{}},
				}
				r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
				client := r.dial(t)
				server := b.next(t)
				send(t, client, "x")
				expect(t, server, "x")
				sick.Store(true)
				if c := receive(t, r.changed, "the server that is down"); c.What != proxy.Down || !strings.Contains(c.Err.Error(), "status 503") {
					t.Errorf("change %+v", c)
				}
				r.dialDoomed(t)()
				if f := receive(t, r.failed, "the failure"); !strings.Contains(f.Err.Error(), "no server is up") || !strings.Contains(f.Err.Error(), "status 503") {
					t.Errorf("failed: %v", f.Err)
				}
				if rule == proxy.KeepSessions {
					send(t, server, "still here")
					expect(t, client, "still here")
					return
				}
				expectReset(t, client)
				if e := receive(t, r.ended, "the end"); e.Cut != proxy.CutDown {
					t.Errorf("cut %q", e.Cut)
				}
			})
		}
	})
}

// newStatus is an HTTP server that says 200, or 503 while sick.
func newStatus(t *testing.T, sick *atomic.Bool) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			status := "200 OK"
			if sick.Load() {
				status = "503 Sick"
			}
			_, _ = c.Read(make([]byte, 1000))
			_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n")
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}

func TestQueue(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		u := proxy.Upstream{Servers: proxy.Targets(b.addr.Address), MaxConnections: 1, Queue: proxy.Queue{Limit: 2, Timeout: proxy.Duration(time.Hour)}}
		r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		first := r.dial(t)
		server := b.next(t)
		var waiting []net.Conn
		for i := range 2 {
			c := r.dial(t)
			send(t, c, fmt.Sprint(i))
			waiting = append(waiting, c)
			settled(func() int { return r.Upstreams()[0].Queued }, i+1)
		}
		r.dialDoomed(t)()
		if f := receive(t, r.failed, "the failure"); !strings.Contains(f.Err.Error(), "the queue") {
			t.Errorf("failed: %v", f.Err)
		}
		if st := r.Stats(); st.Joined != 1 {
			t.Errorf("stats %+v, want one joined", st)
		}
		// In the order of their coming.
		before := first
		for i, c := range waiting {
			_ = before.Close()
			expectEnd(t, server)
			_ = server.Close()
			server = b.next(t)
			expect(t, server, fmt.Sprint(i))
			before = c
		}
	})
}

func TestQueueTimeout(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		u := proxy.Upstream{Servers: proxy.Targets(b.addr.Address), MaxConnections: 1, Queue: proxy.Queue{Timeout: proxy.Duration(50 * time.Millisecond)}}
		r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		r.dial(t)
		b.next(t)
		r.dialDoomed(t)()
		if f := receive(t, r.failed, "the failure"); !strings.Contains(f.Err.Error(), "none had room in time") {
			t.Errorf("failed: %v", f.Err)
		}
	})
}

func TestConnectionsPerClient(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		_, u := trio(t)
		c := oneUpstream(u)
		l := c.Listeners["relay"]
		l.MaxConnectionsPerClient = 2
		c.Listeners["relay"] = l
		r := startRelay(t, w, c, proxy.Hooks{})
		_, one := r.ask(t)
		r.ask(t)
		r.dialDoomed(t)()
		if f := receive(t, r.failed, "the failure"); !strings.Contains(f.Err.Error(), "too many connections") {
			t.Errorf("failed: %v", f.Err)
		}
		_ = one.Close()
		receive(t, r.ended, "the end")
		settled(func() int { return r.Stats().Open }, 1)
		r.ask(t)
	})
}

// Names that don't resolve are no reason not to start.
func TestUnresolvable(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		u := proxy.Upstream{Servers: proxy.Targets("no-such-host.invalid:1"), Resolve: proxy.Resolve{Timeout: proxy.Duration(2 * time.Second)}}
		r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		if c := receive(t, r.changed, "the name"); c.What != proxy.Unresolved || c.Server != "no-such-host.invalid:1" {
			t.Errorf("change %+v", c)
		}
		r.dialDoomed(t)()
		if f := receive(t, r.failed, "the failure"); !strings.Contains(f.Err.Error(), "resolve no-such-host.invalid:1") {
			t.Errorf("failed: %v", f.Err)
		}
	})
}

// Routes by source need no look at the bytes.
func TestRouteBySource(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		a, b := newNamed(t, "127.0.0.1:0", "a"), newNamed(t, "127.0.0.1:0", "b")
		c := proxy.Config{
			Listeners: map[string]proxy.Listener{"relay": {
				Address: []string{"127.0.0.1:0"},
				Routes: []proxy.Route{
					{Source: prefixes(t, "127.0.0.2/32"), Upstream: "a"},
					{Source: prefixes(t, "127.0.0.3/32"), Reject: true},
					{Source: prefixes(t, "127.0.0.0/24", "::/0"), Upstream: "b"},
				},
			}},
			Upstreams: map[string]proxy.Upstream{"a": {Servers: proxy.Targets(a.addr)}, "b": {Servers: proxy.Targets(b.addr)}},
		}
		r := startRelay(t, w, c, proxy.Hooks{})
		for source, want := range map[string]string{"127.0.0.1": "b", "127.0.0.2": "a", "127.0.0.3": "rejected", "127.1.0.1": "no route"} {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
			name := make([]byte, 1)
			conn, err := d.Dial("tcp", r.addr.Address)
			if err == nil {
				_ = conn.SetDeadline(time.Now().Add(patience))
				_, err = io.ReadFull(conn, name)
				_ = conn.Close()
			} else if !errors.Is(err, syscall.ECONNRESET) { // that may be here before the dial has returned
				t.Fatal(err)
			}
			if len(want) == 1 {
				if string(name) != want {
					t.Errorf("from %s: %q, %v; want %s", source, name, err, want)
				}
				continue
			}
			if f := receive(t, r.failed, "the failure"); !strings.Contains(f.Err.Error(), want) {
				t.Errorf("from %s: %v, want %s", source, f.Err, want)
			}
		}
	})
}

// Routes by protocol, the silent client included.
func TestRouteByProtocol(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		servers := map[string]*namedServer{}
		c := proxy.Config{Upstreams: map[string]proxy.Upstream{}}
		l := proxy.Listener{Address: []string{"127.0.0.1:0"}, HandshakeTimeout: proxy.Timeout(2 * time.Second)}
		for i, p := range []proxy.Protocol{"ssh", "http", "postgresql-tls", "silent", "plain"} {
			name := string(rune('a' + i))
			servers[name] = newNamed(t, "127.0.0.1:0", name)
			c.Upstreams[name] = proxy.Upstream{Servers: proxy.Targets(servers[name].addr)}
			l.Routes = append(l.Routes, proxy.Route{Protocol: []proxy.Protocol{p}, Upstream: name})
		}
		c.Listeners = map[string]proxy.Listener{"relay": l}
		r := startRelay(t, w, c, proxy.Hooks{})
		for said, want := range map[string]string{
			"SSH-2.0-x\r\n": "a", "GET / HTTP/1.1\r\n\r\n": "b", "\x00\x00\x00\x08\x04\xd2\x16\x2f": "c", "": "d", "hello, world, this is me": "e",
		} {
			conn := r.dial(t)
			send(t, conn, said)
			expect(t, conn, want)
		}
		// A TLS handshake that is only begun goes nowhere.
		conn := r.dial(t)
		send(t, conn, "\x16\x03\x01\x02\x00\x01\x00")
		expectReset(t, conn)
		if f := receive(t, r.failed, "the failure"); !strings.Contains(f.Err.Error(), "in time") {
			t.Errorf("failed: %v", f.Err)
		}
	})
}

// A drain lets every connection end that can within its timeout: none is cut
// before its second part, and the drain returns with the last of them.
func TestDrainLetsConnectionsEnd(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		_, u := trio(t)
		c := oneUpstream(u)
		c.Drain = proxy.Drain{Timeout: proxy.Timeout(time.Hour), Spread: 50}
		r := startRelay(t, w, c, proxy.Hooks{})
		const n = 20
		var conns []net.Conn
		for range n {
			_, conn := r.ask(t)
			conns = append(conns, conn)
		}
		drained := drain(r)
		for _, conn := range conns {
			select {
			case err := <-drained:
				t.Fatalf("drained, %v, with connections left", err)
			default:
			}
			_ = conn.Close()
			if e := receive(t, r.ended, "an end"); e.Cut != "" || e.Result.AToB.Reason != splice.EOF || e.Result.BToA.Reason != splice.EOF {
				t.Fatalf("ended by %v, %v, %q; want by itself", e.Result.AToB.Reason, e.Result.BToA.Reason, e.Cut)
			}
		}
		if err := receive(t, drained, "the end of the drain"); err != nil {
			t.Error(err)
		}
	})
}

// In the second part of its time a drain closes connections one by one.
func TestDrainClosesOneByOne(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		_, u := trio(t)
		c := oneUpstream(u)
		// The second part begins after 360 ms, and lasts an hour: the first of two is
		// closed at once then, the other one twenty minutes later.
		const timeout = time.Hour
		c.Drain = proxy.Drain{Timeout: proxy.Timeout(timeout), Spread: 99.99}
		r := startRelay(t, w, c, proxy.Hooks{})
		conns := map[string]net.Conn{}
		for range 2 {
			_, conn := r.ask(t)
			conns[conn.LocalAddr().String()] = conn
		}
		begin := time.Now()
		drained := drain(r)
		e := receive(t, r.ended, "an end")
		if after := time.Since(begin); e.Cut != proxy.CutDrained || after < timeout/10_000 {
			t.Errorf("the first has ended after %v, %q", after, e.Cut)
		}
		expectReset(t, conns[e.Client])
		delete(conns, e.Client)
		for _, conn := range conns {
			_ = conn.Close()
		}
		if e := receive(t, r.ended, "an end"); e.Cut != "" || e.Result.AToB.Reason != splice.EOF {
			t.Errorf("the second has ended by %v, %q; want by itself", e.Result.AToB.Reason, e.Cut)
		}
		if err := receive(t, drained, "the end of the drain"); err != nil {
			t.Error(err)
		}
	})
}

// What can't end by itself is left to Close when the time is over.
func TestDrainTimeout(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		_, u := trio(t)
		c := oneUpstream(u)
		c.Drain = proxy.Drain{Timeout: proxy.Timeout(50 * time.Millisecond), Spread: -1}
		r := startRelay(t, w, c, proxy.Hooks{})
		_, conn := r.ask(t)
		if err := receive(t, drain(r), "the end of the drain"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("drained: %v, want the deadline", err)
		}
		_ = r.Close()
		expectReset(t, conn)
		if e := receive(t, r.ended, "an end"); e.Cut != "" || e.Result.AToB.Reason != splice.Stopped {
			t.Errorf("ended by %v, %q", e.Result.AToB.Reason, e.Cut)
		}
	})
}

// A drain without a timeout ends with the last connection, and not before.
func TestDrainForEver(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		_, u := trio(t)
		c := oneUpstream(u)
		c.Drain = proxy.Drain{Timeout: proxy.Never}
		r := startRelay(t, w, c, proxy.Hooks{})
		_, conn := r.ask(t)
		drained := drain(r)
		settled(func() int { return len(r.Addrs("relay")) }, 0)
		send(t, conn, "still here")
		_ = conn.Close()
		if e := receive(t, r.ended, "the end"); e.Cut != "" || e.Result.AToB.Reason != splice.EOF || e.Result.AToB.Bytes != 10 {
			t.Errorf("ended by %v, %q", e.Result, e.Cut)
		}
		if err := receive(t, drained, "the end of the drain"); err != nil {
			t.Error(err)
		}
	})
}

// drain starts a drain, and tells its outcome.
func drain(r *relay) <-chan error {
	done := make(chan error, 1)
	go func() { done <- r.Drain(context.Background()) }()
	return done
}

// Reloads under load: nobody notices, and what is the same is not touched.
func TestReloadUnderLoad(t *testing.T) {
	testnet.Leaks(t)
	servers, u := trio(t)
	u.Health = &proxy.Health{Interval: proxy.Duration(50 * time.Millisecond)}
	c := oneUpstream(u)
	r := startRelay(t, loops, c, proxy.Hooks{})
	_, long := r.ask(t)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var asked atomic.Int64
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				conn, err := net.DialTimeout("tcp", r.addr.Address, patience)
				if err != nil {
					t.Error(err)
					return
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
					t.Error(err)
				}
				if d := time.Duration(rand.N(20)) * time.Millisecond; d > 15*time.Millisecond {
					time.Sleep(d) // some last
				}
				_ = conn.Close()
				asked.Add(1)
			}
		})
	}
	const reloads = 100
	for i := range reloads {
		next := c
		v := u
		switch i % 4 {
		case 0: // one server less
			v.Servers = proxy.Targets(servers[0].addr, servers[1].addr)
		case 1:
			v.Balance = proxy.LeastConnections
		case 2: // one listener more
			next.Listeners = maps.Clone(c.Listeners)
			next.Listeners["more"] = proxy.Listener{Address: []string{"127.0.0.1:0"}, Upstream: "u"}
		}
		next.Upstreams = map[string]proxy.Upstream{"u": v}
		if err := r.Reload(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		bad := next
		bad.Listeners = map[string]proxy.Listener{"relay": {Address: []string{"127.0.0.1:0"}, Upstream: "none"}}
		if err := r.Reload(t.Context(), bad); err == nil {
			t.Fatal("a configuration without its upstream is accepted")
		}
		if a := r.Addrs("relay"); len(a) != 1 || a[0].String() != r.addr.Address {
			t.Fatalf("listens on %v, want %v", a, r.addr)
		}
	}
	seen := asked.Load()
	settled(func() int { return min(1, int(asked.Load()-seen)) }, 1)
	stop()
	wg.Wait()
	select {
	case f := <-r.failed:
		t.Errorf("failed: %v", f.Err)
	default:
	}
	// The one that was there before all of them still is.
	_ = long.Close()
	if st := r.Listeners()[0]; st.Accepted < uint64(asked.Load()) {
		t.Errorf("listener %+v has forgotten of %d", st, asked.Load())
	}
	if st := r.Upstreams()[0]; len(st.Servers) != 3 || st.Servers[0].Checks == 0 {
		t.Errorf("upstream %+v", st)
	}
	t.Logf("%d connections during %d reloads", asked.Load(), reloads)
}

func prefixes(t *testing.T, list ...string) []netip.Prefix {
	t.Helper()
	var out []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}
