package proxy_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
)

// clientHello returns what a TLS client says first.
func clientHello(t *testing.T, name string, alpn ...string) string {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	go func() {
		_ = tls.Client(near, &tls.Config{ServerName: name, NextProtos: alpn, InsecureSkipVerify: true}).Handshake()
		near.Close()
	}()
	b := make([]byte, 8192)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// A town is a server whose routes lead to backends by name.
type town struct {
	*relay
	backends map[string]*backend
}

func newTown(t *testing.T, w way, l proxy.Listener, upstreams ...string) *town {
	t.Helper()
	c := proxy.Config{Listeners: map[string]proxy.Listener{}, Upstreams: map[string]proxy.Upstream{}}
	backends := make(map[string]*backend)
	for _, name := range upstreams {
		b := newBackend(t, loopback(t, "tcp4"))
		backends[name] = b
		c.Upstreams[name] = proxy.Upstream{Servers: proxy.Targets(b.addr.String())}
	}
	if l.Address == nil {
		l.Address = []string{"127.0.0.1:0"}
	}
	c.Listeners["relay"] = l
	return &town{startRelay(t, w, c, proxy.Hooks{}), backends}
}

// get connects, sends in parts, and has the backend of that name receive all of
// it; none of "" does.
func (n *town) get(t *testing.T, backend string, parts ...string) proxy.Failed {
	t.Helper()
	if backend == "" {
		n.dialRefused(t, strings.Join(parts, ""))
		return receive(t, n.failed, "the failure")
	}
	c := n.dial(t)
	for _, p := range parts {
		send(t, c, p)
	}
	b := n.backends[backend].next(t)
	expect(t, b, strings.Join(parts, ""))
	send(t, b, "answer")
	expect(t, c, "answer")
	c.Close()
	expectEnd(t, b)
	b.Close()
	receive(t, n.ended, "the end")
	return proxy.Failed{}
}

// dialRefused connects and sends for somebody who will be reset: perhaps before
// the dial has returned, and then there is no connection.
func (r *relay) dialRefused(t *testing.T, s string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(r.addr.Network, r.addr.Address, patience)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = c.Write([]byte(s))
	return c
}

func TestRoutesByFirstBytes(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		n := newTown(t, w, proxy.Listener{Routes: []proxy.Route{
			{SNI: []string{"a.example"}, Upstream: "a"},
			{SNI: []string{"*.example"}, ALPN: []string{"h2"}, Upstream: "h2"},
			{SNI: []string{"*.example"}, Upstream: "wildcard"},
			{Protocol: []proxy.Protocol{proxy.ProtocolTLS}, Upstream: "tls"},
			{Protocol: []proxy.Protocol{"ssh", "postgresql", "postgresql-tls"}, Upstream: "services"},
			{Protocol: []proxy.Protocol{"http"}, Reject: true},
			{Protocol: []proxy.Protocol{"plain"}, Source: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Upstream: "plain"},
		}}, "a", "h2", "wildcard", "tls", "services", "plain")
		n.get(t, "a", clientHello(t, "A.example"))
		n.get(t, "h2", clientHello(t, "b.example", "h2", "http/1.1"))
		n.get(t, "wildcard", clientHello(t, "b.example", "http/1.1"))
		n.get(t, "tls", clientHello(t, ""))
		n.get(t, "services", "SSH-2.0-test\r\n")
		n.get(t, "services", "\x00\x00\x00\x08\x04\xd2\x16\x2f")
		n.get(t, "plain", "anything")
		if f := n.get(t, "", "GET / HTTP/1.1\r\n\r\n"); f.Err == nil || f.Err.Error() != "rejected by its route" {
			t.Errorf("HTTP: %v", f.Err)
		}
		// Byte by byte, and in two TLS records.
		hello := clientHello(t, "a.example")
		n.get(t, "a", strings.Split(hello, "")...)
		body := hello[5:]
		split := hello[:3] + string([]byte{0, 40}) + body[:40] + hello[:3] + string([]byte{byte((len(body) - 40) >> 8), byte(len(body) - 40)}) + body[40:]
		n.get(t, "a", split[:20], split[20:60], split[60:])
		n.get(t, "plain", hello[:5]+"\x02"+hello[6:]) // a ServerHello
	})
}

// Names are looked for where the balance hashes them, also if no route asks: clients of
// one address go to both servers, and each name to one.
func TestNamesAreHashed(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		one, two := newNamed(t, "127.0.0.1:0", "1"), newNamed(t, "127.0.0.1:0", "2")
		r := startRelay(t, w, oneUpstream(proxy.Upstream{Servers: proxy.Targets(one.addr, two.addr), Balance: proxy.Maglev, Hash: proxy.BySNI}), proxy.Hooks{})
		ask := func(sni string) string {
			t.Helper()
			c := r.dial(t)
			defer c.Close()
			send(t, c, clientHello(t, sni))
			var b [1]byte
			if _, err := io.ReadFull(c, b[:]); err != nil {
				t.Fatal(err)
			}
			return string(b[:])
		}
		met := make(map[string]bool)
		for n := 0; len(met) < 2; n++ {
			sni := fmt.Sprintf("name-%d.example", n)
			first := ask(sni)
			if again := ask(sni); again != first {
				t.Errorf("%s goes to %s and to %s", sni, first, again)
			}
			if met[first] = true; n == 100 {
				t.Fatalf("%d names go to %v", n, met)
			}
		}
	})
}

// What no route is for is said: it is what the next one has to be for.
func TestNoRouteSaysForWhat(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		n := newTown(t, w, proxy.Listener{Routes: []proxy.Route{{SNI: []string{"a.example"}, Upstream: "a"}}}, "a")
		for want, said := range map[string]string{
			`no route matches protocol tls, sni "b.example", alpn ["h2" "http/1.1"]`: clientHello(t, "b.example", "h2", "http/1.1"),
			`no route matches protocol ssh`:                                          "SSH-2.0-test\r\n",
		} {
			if f := n.get(t, "", said); f.Reason != proxy.NoRoute || f.Err == nil || f.Err.Error() != want {
				t.Errorf("%s: %v, want %s", f.Reason, f.Err, want)
			}
		}
	})
}

// Who says nothing in time waits for the server to speak; who has begun a TLS
// client hello does not.
func TestHandshakeTimeout(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		n := newTown(t, w, proxy.Listener{HandshakeTimeout: proxy.Timeout(2 * time.Second), Routes: []proxy.Route{
			{Protocol: []proxy.Protocol{"silent"}, Upstream: "first"},
			{SNI: []string{"a.example"}, Upstream: "a"},
			{Upstream: "rest"},
		}}, "first", "a", "rest")
		hello := clientHello(t, "a.example")
		silent, short := n.dial(t), n.dial(t)
		send(t, short, "GE")
		sizes := []int{1, 5, 6, len(hello) - 1}
		for _, size := range sizes {
			send(t, n.dial(t), hello[:size])
		}
		b := n.backends["first"].next(t)
		send(t, b, "220 welcome")
		expect(t, silent, "220 welcome")
		expect(t, n.backends["rest"].next(t), "GE")
		for range sizes {
			if f := receive(t, n.failed, "the failure"); !strings.Contains(f.Err.Error(), "in time") {
				t.Errorf("part of a client hello: %v", f.Err)
			}
		}
	})
}

func TestClientLeavesBefore(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		n := newTown(t, w, proxy.Listener{Routes: []proxy.Route{
			{SNI: []string{"a.example"}, Upstream: "a"}, {Upstream: "rest"},
		}}, "a", "rest")
		n.dial(t).Close()
		if f := receive(t, n.failed, "the failure"); f.Err == nil || !strings.Contains(f.Err.Error(), "without a word") {
			t.Errorf("it failed with %v", f.Err)
		}
		// A word that is short and whole.
		c := n.dial(t)
		send(t, c, "GE")
		closeWrite(t, c)
		b := n.backends["rest"].next(t)
		expect(t, b, "GE")
		expectEnd(t, b)
	})
}

func TestCloseWhileLooking(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		n := newTown(t, w, proxy.Listener{Routes: []proxy.Route{{SNI: []string{"a.example"}, Upstream: "a"}}}, "a")
		c := n.dial(t)
		send(t, c, "\x16")
		for end := time.Now().Add(patience); n.Stats().Open == 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		expectReset(t, c)
	})
}

func TestPROXYIn(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		n := newTown(t, w, proxy.Listener{
			ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			Deny:      []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("127.0.0.1/32")},
			Upstream:  "rest",
			Routes: []proxy.Route{
				{SNI: []string{"a.example"}, Upstream: "a"},
				{Source: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Upstream: "near"},
			},
		}, "a", "near", "rest")
		for name, tt := range map[string]struct {
			header, body, backend, client string
		}{
			"version 1": {"PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\n", "hello", "near", "192.0.2.7:1000"},
			"version 2": {"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0f\xc0\x00\x02\x07\xc0\x00\x02\x08\x03\xe8\x01\xbb\x04\x00\x00", "hello", "near", "192.0.2.7:1000"},
			"TLS":       {"PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\n", clientHello(t, "a.example"), "a", "192.0.2.7:1000"},
			"IPv6":      {"PROXY TCP6 2001:db8::1 2001:db8::2 1000 443\r\n", "hello", "rest", "[2001:db8::1]:1000"},
			"byte by byte": {
				"PROXY TCP4 192.0.2.7 192.0.2.8 1001 443\r\n", "hello", "near", "192.0.2.7:1001",
			},
		} {
			c := n.dial(t)
			parts := []string{tt.header + tt.body}
			if name == "byte by byte" {
				parts = strings.Split(tt.header+tt.body, "")
			}
			for _, p := range parts {
				send(t, c, p)
			}
			b := n.backends[tt.backend].next(t)
			expect(t, b, tt.body)
			c.Close()
			expectEnd(t, b)
			b.Close()
			if e := receive(t, n.ended, "the end"); e.Client != tt.client {
				t.Errorf("%s: the client is %s, want %s", name, e.Client, tt.client)
			}
		}
		for header, want := range map[string]string{
			"PROXY TCP4 203.0.113.7 192.0.2.8 1000 443\r\n": "not allowed",
			"PROXY UNKNOWN\r\n":                             "not allowed", // then the proxy's own address counts
			"GET / HTTP/1.1\r\n":                            "PROXY header",
			"PROXY nonsense\r\n":                            "PROXY header",
		} {
			if f := n.get(t, "", header+"hello"); f.Err == nil || !strings.Contains(f.Err.Error(), want) {
				t.Errorf("%q: %v, want %q", header, f.Err, want)
			}
		}
	})
}

// A header from elsewhere is the client's own words.
func TestPROXYFromAnybody(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		n := newTown(t, w, proxy.Listener{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Upstream: "a"}, "a")
		n.get(t, "a", "PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\nhello")
	})
}

func TestWhoMayConnect(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		for name, tt := range map[string]struct {
			listener proxy.Listener
			good     int
			want     string
		}{
			"denied":      {proxy.Listener{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, 0, "not allowed"},
			"not allowed": {proxy.Listener{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, 0, "not allowed"},
			"too often":   {proxy.Listener{AcceptRatePerClient: 1}, 1, "too often"},
			"too many":    {proxy.Listener{MaxConnectionsPerClient: 2}, 2, "too many"},
		} {
			t.Run(name, func(t *testing.T) {
				tt.listener.Upstream = "a"
				n := newTown(t, w, tt.listener, "a")
				for range tt.good {
					send(t, n.dial(t), "hello")
					expect(t, n.backends["a"].next(t), "hello")
				}
				// Some may not be too often on a machine that stands still for a second.
				var ends []func()
				for len(ends) < 20 && len(n.failed) == 0 {
					ends = append(ends, n.dialDoomed(t))
					time.Sleep(5 * time.Millisecond)
				}
				if f := receive(t, n.failed, "a failure"); !strings.Contains(f.Err.Error(), tt.want) {
					t.Errorf("it failed with %v, want %q", f.Err, tt.want)
				}
				if tt.good == 0 {
					ends[0]()
				}
			})
		}
	})
}

// The limits of a client outlast a reload that does not change them.
func TestRateOutlastsReload(t *testing.T) {
	testnet.Leaks(t)
	n := newTown(t, loops, proxy.Listener{AcceptRatePerClient: 1, Upstream: "a"}, "a")
	send(t, n.dial(t), "hello")
	expect(t, n.backends["a"].next(t), "hello")
	c := n.CurrentConfig()
	l := c.Listeners["relay"]
	l.HandshakeTimeout = proxy.Timeout(time.Minute)
	c.Listeners = map[string]proxy.Listener{"relay": l}
	if err := n.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 20 && len(n.failed) == 0; i++ {
		n.dialDoomed(t)
		time.Sleep(5 * time.Millisecond)
	}
	if f := receive(t, n.failed, "a failure: the rate is forgotten"); !strings.Contains(f.Err.Error(), "too often") {
		t.Error(f.Err)
	}
}

func TestCheckOfAccess(t *testing.T) {
	t.Parallel()
	net10 := netip.MustParsePrefix("10.0.0.0/8")
	c := proxy.Config{
		Listeners: map[string]proxy.Listener{"web": {
			Address: []string{":80"}, Upstream: "u", Allow: []netip.Prefix{net10}, Deny: []netip.Prefix{net10},
			ProxyFrom: []netip.Prefix{{}}, AcceptRatePerClient: -1,
		}},
		Upstreams: map[string]proxy.Upstream{"u": {Servers: proxy.Targets("127.0.0.1:1")}},
	}
	var places []string
	for _, p := range c.Check() {
		places = append(places, strings.Join(p.Path, "."))
	}
	for _, want := range []string{"listeners.web.deny", "listeners.web.proxy_from", "listeners.web.accept_rate_per_client"} {
		if !slices.Contains(places, want) {
			t.Errorf("no problem at %s: %v", want, places)
		}
	}
}

// Clients that only begin to say something can't keep others out for all of
// their handshake timeout: when the server is full, or their listener, they have a
// hundredth of it. Those of other listeners keep theirs.
func TestSlowClientsMakeRoom(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	bothWays(t, func(t *testing.T, w way) {
		for _, full := range []string{"server", "listener"} {
			t.Run(full, func(t *testing.T) { slowClients(t, w, full) })
		}
	})
}

func slowClients(t *testing.T, w way, full string) {
	testnet.Leaks(t)
	const places, timeout = 8, 6 * time.Second
	b := newBackend(t, loopback(t, "tcp4"))
	l := proxy.Listener{
		Address: []string{"127.0.0.1:0"}, HandshakeTimeout: proxy.Timeout(timeout),
		Routes: []proxy.Route{{SNI: []string{"a.example"}, Upstream: "a"}},
	}
	other := l
	other.HandshakeTimeout = proxy.Timeout(time.Hour)
	c := proxy.Config{Upstreams: map[string]proxy.Upstream{"a": {Servers: proxy.Targets(b.addr.String())}}}
	if full == "server" {
		c.MaxConnections = places
	} else {
		l.MaxConnections = places
	}
	c.Listeners = map[string]proxy.Listener{"relay": l, "other": other}
	r := startRelay(t, w, c, proxy.Hooks{})
	hello := clientHello(t, "a.example")
	joined := r.dial(t) // is none of those
	send(t, joined, hello)
	server := b.next(t)
	expect(t, server, hello)
	slow := 3 * places
	var elsewhere net.Conn
	if full == "listener" {
		var err error
		if elsewhere, err = net.DialTimeout("tcp", r.Addrs("other")[0].String(), patience); err != nil {
			t.Fatal(err)
		}
		defer elsewhere.Close()
		_ = elsewhere.SetDeadline(time.Now().Add(patience))
		send(t, elsewhere, hello[:5])
	}
	for range slow {
		send(t, r.dial(t), hello[:5])
	}
	if h := receive(t, r.held, "the limit"); !errors.Is(h.Err, proxy.ErrConnLimit) {
		t.Errorf("held: %v", h.Err)
	}
	honest := r.dial(t)
	send(t, honest, hello)
	expect(t, b.next(t), hello)
	// As many as came before it, but for those that still had room.
	for range 2 * places {
		f := receive(t, r.failed, "the failure")
		if f.Reason != proxy.HandshakeTimeout || f.After > timeout/2 || f.Listener != "relay" {
			t.Errorf("failed with %s of %s after %v, %v; want %s after %v", f.Reason, f.Listener, f.After, f.Err, proxy.HandshakeTimeout, timeout/100)
		}
	}
	send(t, server, "still here")
	expect(t, joined, "still here")
	if elsewhere != nil {
		send(t, elsewhere, hello[5:])
		expect(t, b.next(t), hello)
	}
}

// Places are kept from clients that say nothing: with others coming, they leave
// before the server is full, so that nobody has to wait for one.
func TestSlowClientsLeaveSpare(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		const places, spare, timeout = 64, 2, 20 * time.Second
		b := newBackend(t, loopback(t, "tcp4"))
		r := startRelay(t, w, proxy.Config{
			MaxConnections: places,
			Listeners: map[string]proxy.Listener{"relay": {
				Address: []string{"127.0.0.1:0"}, HandshakeTimeout: proxy.Timeout(timeout),
				Routes: []proxy.Route{{SNI: []string{"a.example"}, Upstream: "a"}},
			}},
			Upstreams: map[string]proxy.Upstream{"a": {Servers: proxy.Targets(b.addr.String())}},
		}, proxy.Hooks{})
		hello := clientHello(t, "a.example")
		for range places - spare {
			send(t, r.dial(t), hello[:5])
		}
		honest := r.dial(t)
		send(t, honest, hello)
		server := b.next(t)
		expect(t, server, hello)
		if f := receive(t, r.failed, "the failure"); f.Reason != proxy.HandshakeTimeout || f.After > timeout/2 || !strings.HasPrefix(f.Err.Error(), "others needed the place of the client") {
			t.Errorf("failed with %s after %v, %v; want %s after %v", f.Reason, f.After, f.Err, proxy.HandshakeTimeout, timeout/100)
		}
		if n := len(r.held); n > 0 {
			t.Errorf("held %d times, with places to spare", n)
		}
	})
}
