package proxy_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
)

// serveEach has a server do the same with every connection.
func serveEach(t *testing.T, ln net.Listener, serve func(net.Conn)) string {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			serve(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return boundAddr(ln).String()
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// says is a server that answers what it is asked, a line, and waits for the end; asks
// "" it speaks first.
func says(asked, answer string) func(net.Conn) {
	return func(c net.Conn) {
		if asked != "" {
			if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != asked {
				return
			}
		}
		_, _ = io.WriteString(c, answer)
		_, _ = io.Copy(io.Discard, c)
	}
}

// web answers HTTP with a status, if it is asked for the right thing.
func web(status int, method, path, body string) func(net.Conn) {
	return func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		host := c.LocalAddr().String()
		if _, encrypted := c.(*tls.Conn); encrypted {
			host = "www.example"
		}
		if r.Method != method || r.URL.Path != path || r.Host != host {
			status = 599
		}
		fmt.Fprintf(c, "HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
	}
}

// Each kind of check finds the servers that work, and says of the others why they
// don't.
func TestChecks(t *testing.T) {
	testnet.Leaks(t)
	ca := newIssuer(t)
	pair := issue(t, ca, "www", 1, "www.example")
	certificate, err := tls.LoadX509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	named := make(chan string, 100) // the names that TLS checks have sent
	encrypted := func(serve func(net.Conn)) string {
		return serveEach(t, tls.NewListener(listen(t, "tcp", "127.0.0.1:0"), &tls.Config{Certificates: []tls.Certificate{certificate}}), func(c net.Conn) {
			if c.(*tls.Conn).Handshake() == nil {
				named <- c.(*tls.Conn).ConnectionState().ServerName
				serve(c)
			}
		})
	}
	plain := func(serve func(net.Conn)) string { return serveEach(t, listen(t, "tcp", "127.0.0.1:0"), serve) }
	unix := serveEach(t, listen(t, "unix", filepath.Join(t.TempDir(), "s")), says("PING\r\n", "+PONG\r\n"))
	ping := proxy.Health{Send: `PING\r\n`, Expect: "+PONG"}
	get := func(h proxy.HTTPCheck) proxy.Health { return proxy.Health{HTTP: &h} }
	c := proxy.Config{
		Listeners: map[string]proxy.Listener{"relay": {Address: []string{"127.0.0.1:0"}, Upstream: "connect"}},
		Upstreams: map[string]proxy.Upstream{},
	}
	want := map[string]string{} // the error; "" is up
	check := func(name, server string, h proxy.Health, problem string) {
		h.Interval = proxy.Duration(time.Hour) // the first check decides
		if h.Timeout == 0 {
			h.Timeout = proxy.Duration(patience)
		}
		c.Upstreams[name] = proxy.Upstream{Servers: proxy.Targets(server), Health: &h}
		want[name] = problem
	}
	check("connect", plain(says("", "")), proxy.Health{}, "")
	check("connect refused", dead(t).Address, proxy.Health{}, "connect: connection refused")
	check("connect in vain", testnet.NewSilent(t).Addr, proxy.Health{Timeout: proxy.Duration(100 * time.Millisecond)}, "connect: no answer in time")
	check("answer", plain(says("PING\r\n", "+PONG\r\n")), ping, "")
	check("answer in pieces", plain(func(c net.Conn) {
		_, _ = io.WriteString(c, "+PO")
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(c, "NG\r\n")
		_, _ = io.Copy(io.Discard, c)
	}), ping, "")
	check("another answer", plain(func(c net.Conn) { _, _ = c.Read(make([]byte, 6)); _, _ = io.WriteString(c, "-LOADING\r\n") }), ping, `the answer "-LOADING\r\n" does not contain "+PONG"`)
	check("no answer", plain(says("PING\r\n", "")), proxy.Health{Send: `PING\r\n`, Expect: "+PONG", Timeout: proxy.Duration(200 * time.Millisecond)}, "no answer in time")
	check("answer of a unix socket", unix, ping, "")
	check("greeting", plain(says("", "220 ready\r\n")), proxy.Health{Expect: "220"}, "")
	check("another greeting", plain(func(c net.Conn) { _, _ = io.WriteString(c, "554 no\r\n") }), proxy.Health{Expect: "220"}, "does not contain")
	check("TLS", encrypted(says("", "")), proxy.Health{TLS: true, ServerName: "tls.example"}, "")
	check("TLS without any", plain(says("", "HTTP/1.1 400 Bad Request\r\n\r\n")), proxy.Health{TLS: true}, "TLS handshake: ")
	check("answer in TLS", encrypted(says("PING\r\n", "+PONG\r\n")), proxy.Health{TLS: true, Send: ping.Send, Expect: ping.Expect}, "")
	check("HTTP", plain(web(204, "GET", "/", "")), get(proxy.HTTPCheck{}), "")
	check("HTTP, asked for", plain(web(404, "HEAD", "/healthz", "")), get(proxy.HTTPCheck{Method: "HEAD", Path: "/healthz", Status: []string{"200-299", "404"}}), "")
	check("HTTP, sick", plain(web(503, "GET", "/", "")), get(proxy.HTTPCheck{}), "status 503, want 200-399")
	check("HTTP, another status", plain(web(500, "GET", "/", "")), get(proxy.HTTPCheck{Status: []string{"200", "201"}}), "status 500, want 200, 201")
	check("HTTP, body", plain(web(200, "GET", "/", "all is well")), proxy.Health{HTTP: &proxy.HTTPCheck{}, Expect: "well"}, "")
	check("HTTP, another body", plain(web(200, "GET", "/", "nothing is")), proxy.Health{HTTP: &proxy.HTTPCheck{}, Expect: "well"}, `does not contain "well"`)
	check("HTTP in TLS", encrypted(web(200, "GET", "/", "")), proxy.Health{TLS: true, ServerName: "www.example", HTTP: &proxy.HTTPCheck{}}, "")
	check("no HTTP", plain(says("", "SSH-2.0-x\r\n")), get(proxy.HTTPCheck{}), `the answer "SSH-2.0-x\r\n" is not HTTP/1`)
	check("HTTP, closed", plain(func(c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) }), get(proxy.HTTPCheck{}), "receive: EOF")

	r := startRelay(t, loops, c, proxy.Hooks{})
	settled(func() (checked int) {
		for _, u := range r.Upstreams() {
			checked += int(u.Servers[0].Checks)
		}
		return checked
	}, len(want))
	for _, u := range r.Upstreams() {
		s, problem := u.Servers[0], want[u.Name]
		state := proxy.ServerDown
		if problem == "" {
			state = proxy.ServerUp
		}
		if s.State != state || problem == "" && s.Error != "" || !strings.Contains(s.Error, problem) || strings.Count(s.Error, "connect:") > 1 {
			t.Errorf("%s: %s, %q; want %s, %q", u.Name, s.State, s.Error, state, problem)
		}
	}
	names := map[string]int{}
	for len(named) > 0 {
		names[<-named]++
	}
	if names["tls.example"] != 1 || names["www.example"] != 1 {
		t.Errorf("the names that were sent are %v", names)
	}
}

// A server goes down with so many checks in a row that fail, the very first one
// excepted, and comes up with so many that pass.
func TestRiseAndFall(t *testing.T) {
	testnet.Leaks(t)
	for _, tt := range []struct {
		answers string // to check after check: + passes
		states  string // after each: u is up, d is down
	}{
		{"+--+---+-++", "uuuuuudddd" + "u"},
		{"-+-++", "dddd" + "u"},
	} {
		ln := listen(t, "tcp", "127.0.0.1:0").(*net.TCPListener)
		t.Cleanup(func() { _ = ln.Close() })
		_ = ln.SetDeadline(time.Now().Add(2 * patience))
		c := oneUpstream(proxy.Upstream{
			Servers: proxy.Targets(ln.Addr().String()),
			Health:  &proxy.Health{Interval: proxy.Duration(time.Millisecond), Timeout: proxy.Duration(patience), Rise: 2, Fall: 3, Expect: "+", Jitter: -1},
		})
		r := startRelay(t, loops, c, proxy.Hooks{})
		state := func() (s string) {
			switch got := r.Upstreams()[0].Servers[0].State; got {
			case proxy.ServerUp:
				return "u"
			case proxy.ServerDown:
				return "d"
			default:
				return string(got)
			}
		}
		var states string
		for i := range len(tt.answers) + 1 {
			conn, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 { // a check comes when the one before it was taken in
				states += state()
			} else if got := state(); got != string(proxy.ServerUnchecked) {
				t.Errorf("before the first check it is %s", got)
			}
			if i < len(tt.answers) {
				_, _ = io.WriteString(conn, tt.answers[i:i+1])
			}
			_ = conn.Close()
		}
		if states != tt.states {
			t.Errorf("checks %s: states %s, want %s", tt.answers, states, tt.states)
		}
		_ = r.Close()
	}
}

// Checks are not all made at once: of forty that are due again in ten seconds, more or
// less, one is before long.
func TestChecksAreSpread(t *testing.T) {
	testnet.Leaks(t)
	_, port, err := net.SplitHostPort(serveEach(t, listen(t, "tcp4", "0.0.0.0:0"), func(net.Conn) {}))
	if err != nil {
		t.Fatal(err)
	}
	u := proxy.Upstream{Health: &proxy.Health{Interval: proxy.Duration(10 * time.Second), Jitter: 100}}
	for i := range 40 {
		u.Servers = append(u.Servers, proxy.Target{Address: fmt.Sprintf("127.0.0.%d:%s", i+1, port)})
	}
	begun := time.Now()
	r := startRelay(t, loops, oneUpstream(u), proxy.Hooks{})
	again := func() (n int) {
		for _, s := range r.Upstreams()[0].Servers {
			if s.Checks > 1 {
				n++
			}
		}
		return min(n, 1)
	}
	if settled(again, 1); time.Since(begun) > 9*time.Second {
		t.Errorf("the first is checked again after %v", time.Since(begun))
	}
}

// Below its threshold the checks are not believed, and all servers are used; at it
// they are.
func TestPanicThreshold(t *testing.T) {
	testnet.Leaks(t)
	for _, tt := range []struct {
		threshold proxy.Percent
		want      map[string]int
	}{{34, map[string]int{"a": 10, "b": 10, "c": 10}}, {33, map[string]int{"a": 30}}, {0, map[string]int{"a": 30}}} {
		var u proxy.Upstream
		for _, name := range []string{"a", "b", "c"} {
			server := serveEach(t, listen(t, "tcp", "127.0.0.1:0"), func(c net.Conn) { _, _ = io.WriteString(c, name) })
			u.Servers = append(u.Servers, proxy.Target{Address: server})
		}
		u.PanicThreshold = tt.threshold
		u.Health = &proxy.Health{Interval: proxy.Duration(time.Hour), Expect: "a"} // only one says that
		r := startRelay(t, loops, oneUpstream(u), proxy.Hooks{})
		settled(func() (checked int) {
			for _, s := range r.Upstreams()[0].Servers {
				checked += int(s.Checks)
			}
			return checked
		}, 3)
		if got := r.tally(t, 30); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("with one of three up and a threshold of %v%%: %v, want %v", tt.threshold, got, tt.want)
		}
		_ = r.Close()
	}
}

// Each ejection is twice as long as the one before, up to the longest; a server that
// was not out for as long as that begins again.
func TestEjectionTimes(t *testing.T) {
	testnet.Leaks(t)
	broken, good := dead(t).Address, newNamed(t, "127.0.0.1:0", "g")
	r := startRelay(t, loops, oneUpstream(proxy.Upstream{
		Servers: proxy.Targets(broken, good.addr), Balance: proxy.First,
		Ejection: proxy.Ejection{Failures: 1, Time: proxy.Duration(20 * time.Millisecond), MaxTime: proxy.Duration(150 * time.Millisecond)},
	}), proxy.Hooks{})
	round := func() string {
		t.Helper()
		begun := time.Now()
		if name, c := r.ask(t); name != "g" {
			t.Errorf("answered by %q", name)
		} else {
			_ = c.Close()
		}
		out := receive(t, r.changed, "the ejection")
		if out.What != proxy.Ejected || out.Server != broken || out.Err == nil {
			t.Fatalf("told of %+v", out)
		}
		if in := receive(t, r.changed, "the end of the ejection"); in.What != proxy.Readmitted || in.Server != broken {
			t.Fatalf("told of %+v", in)
		}
		if d, err := time.ParseDuration(out.Detail); err != nil || time.Since(begun) < d {
			t.Errorf("an ejection for %s has lasted %v", out.Detail, time.Since(begun))
		}
		return out.Detail
	}
	ejections := func() int { return r.Upstreams()[0].Servers[0].Ejections }
	longest, rounds := 0, 0
	for last := ""; longest < 2; {
		next := round()
		if want := map[string]string{"": "20ms", "20ms": "40ms", "40ms": "80ms", "80ms": "150ms", "150ms": "150ms"}[last]; next != want && next != "20ms" { // where the machine stands still it is forgiven
			t.Fatalf("ejected for %s after %s", next, last)
		}
		if last = next; last == "150ms" {
			longest++
		}
		if rounds++; rounds == 40 {
			t.Fatalf("after %d ejections, the last for %s, none is the longest", rounds, last)
		}
	}
	if n := settled(ejections, 0); n != 0 {
		t.Errorf("%d ejections are not forgiven", n)
	}
	if got := round(); got != "20ms" {
		t.Errorf("after it was forgiven it is ejected for %s", got)
	}
}

// No more than their share of the servers is ejected, one at least.
func TestEjectedShare(t *testing.T) {
	testnet.Leaks(t)
	for share, want := range map[proxy.Percent]int{1: 1, 50: 2, 74: 2, 75: 3, 100: 3} {
		good := newNamed(t, "127.0.0.1:0", "g")
		r := startRelay(t, loops, oneUpstream(proxy.Upstream{
			Servers: proxy.Targets(dead(t).Address, dead(t).Address, dead(t).Address, good.addr), Attempts: 4,
			Ejection: proxy.Ejection{Failures: 1, Time: proxy.Duration(time.Hour), MaxTime: proxy.Duration(time.Hour), MaxShare: share},
		}), proxy.Hooks{})
		if got := r.tally(t, 20); got["g"] != 20 {
			t.Errorf("%v%%: got %v", share, got)
		}
		out := 0
		for _, s := range r.Upstreams()[0].Servers {
			if s.Ejected {
				out++
			}
		}
		if out != want {
			t.Errorf("%v%% of four: %d are out, want %d", share, out, want)
		}
		_ = r.Close()
	}
}

// What becomes of the connections of a server that leaves the configuration.
func TestOnRemoved(t *testing.T) {
	testnet.Leaks(t)
	for _, rule := range []proxy.SessionRule{proxy.KeepSessions, proxy.DrainSessions, proxy.CloseSessions} {
		t.Run(string(rule), func(t *testing.T) {
			b := newBackend(t, loopback(t, "tcp4"))
			u := proxy.Upstream{Servers: proxy.Targets(b.addr.Address), OnRemoved: rule, DrainTime: proxy.Timeout(100 * time.Millisecond)}
			r := startRelay(t, loops, oneUpstream(u), proxy.Hooks{})
			client := r.dial(t)
			server := b.next(t)
			send(t, client, "x")
			expect(t, server, "x")
			stays := newNamed(t, "127.0.0.1:0", "s")
			u.Servers = proxy.Targets(stays.addr)
			begun := time.Now()
			if err := r.Reload(t.Context(), oneUpstream(u)); err != nil {
				t.Fatal(err)
			}
			if got := r.tally(t, 3); got["s"] != 3 {
				t.Errorf("new clients: %v", got)
			}
			if rule == proxy.KeepSessions {
				send(t, server, "still here")
				expect(t, client, "still here")
				return
			}
			expectReset(t, client)
			expectReset(t, server)
			for {
				e := receive(t, r.ended, "the end")
				if e.Client == client.LocalAddr().String() {
					if e.Cut != proxy.CutRemoved || rule == proxy.DrainSessions && time.Since(begun) < time.Duration(u.DrainTime) {
						t.Errorf("cut %q after %v", e.Cut, time.Since(begun))
					}
					return
				}
			}
		})
	}
}

// Only so many servers are tried for a client.
func TestAttempts(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		good := newNamed(t, "127.0.0.1:0", "g")
		u := proxy.Upstream{
			Servers: proxy.Targets(dead(t).Address, dead(t).Address, good.addr), Balance: proxy.First, Attempts: 2, Ejection: proxy.Ejection{Off: true},
		}
		r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		r.dialDoomed(t)()
		f := receive(t, r.failed, "the failure")
		if f.Reason != proxy.ConnectRefused || strings.Contains(f.Err.Error(), good.addr) {
			t.Errorf("failed with %s, %v", f.Reason, f.Err)
		}
		for i, want := range []uint64{1, 1, 0} {
			if s := r.Upstreams()[0].Servers[i]; s.ConnectFailed != want || s.Connected != 0 {
				t.Errorf("server %d: %d connects failed, %d did not", i, s.ConnectFailed, s.Connected)
			}
		}
		u.Attempts = 3
		if err := r.Reload(t.Context(), oneUpstream(u)); err != nil {
			t.Fatal(err)
		}
		if name, _ := r.ask(t); name != "g" {
			t.Errorf("answered by %q", name)
		}
	})
}

// A server's own max_connections takes the place of the upstream's.
func TestServerLimit(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		_, u := trio(t)
		u.Balance, u.MaxConnections = proxy.First, 1
		u.Servers[0].MaxConnections = 2
		r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		var got string
		for range 4 {
			name, _ := r.ask(t)
			got += name
		}
		if got != "aabc" {
			t.Errorf("clients that stay went to %s, want aabc", got)
		}
	})
}

// Whoever comes from an address that is denied in an allowed network, or allowed in a
// denied one, is judged by the smaller of them.
func TestSmallestNetworkDecides(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		n := newTown(t, w, proxy.Listener{
			Allow: prefixes(t, "127.0.0.0/8", "127.0.0.7/32"), Deny: prefixes(t, "127.0.0.0/24", "127.9.0.0/16"), Upstream: "a",
		}, "a")
		for source, good := range map[string]bool{"127.0.0.1": false, "127.0.0.7": true, "127.0.1.1": true, "127.9.0.1": false} {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source + ":0")), Timeout: patience}
			c, err := d.Dial("tcp", n.addr.Address)
			if err == nil {
				_ = c.SetDeadline(time.Now().Add(patience))
				defer c.Close()
			}
			if good {
				if err != nil {
					t.Fatal(err)
				}
				send(t, c, source)
				expect(t, n.backends["a"].next(t), source)
				continue
			}
			if f := receive(t, n.failed, "the failure"); f.Reason != proxy.ClientDenied || !strings.HasPrefix(f.Client, source+":") {
				t.Errorf("from %s: %s, %v", source, f.Reason, f.Err)
			}
			if err == nil {
				expectReset(t, c)
			} else if !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
		}
	})
}
