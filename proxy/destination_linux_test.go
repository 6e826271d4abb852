package proxy_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
)

// toOriginal is a listener whose clients go where they wanted to.
func toOriginal(l proxy.Listener) proxy.Config {
	l.Upstream = "there"
	if l.Address == nil {
		l.Address = []string{"127.0.0.1:0"}
	}
	return proxy.Config{
		Listeners: map[string]proxy.Listener{"relay": l},
		Upstreams: map[string]proxy.Upstream{"there": {Servers: proxy.Targets(proxy.OriginalDestination)}},
	}
}

// Who comes straight to the listener, at whichever of its addresses, has nowhere
// else to go. Redirected ones: see TestTransparent of cmd/spliced.
func TestOriginalDestinationItself(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", ":0"} {
			testnet.Leaks(t)
			r := startRelay(t, w, toOriginal(proxy.Listener{Address: []string{address}}), proxy.Hooks{})
			_, port, _ := net.SplitHostPort(r.Addrs("relay")[0].String())
			hosts := []string{"127.0.0.1"}
			if strings.HasPrefix(address, ":") {
				hosts = append(hosts, "::1")
			}
			for _, host := range append(hosts, localAddr(t)...) {
				if host != "127.0.0.1" && strings.HasPrefix(address, "127") {
					continue
				}
				dialReset(t, net.JoinHostPort(host, port))
				f := receive(t, r.failed, "the failure")
				if f.Reason != proxy.NoDestination || !strings.Contains(f.Err.Error(), "is the listener itself") {
					t.Errorf("%s at %s: %s, %v", address, host, f.Reason, f.Err)
				}
			}
			if n := r.Upstreams()[0].Servers[0].ConnectFailed; n != 0 {
				t.Errorf("%d failures of the server", n)
			}
			_ = r.Close()
		}
	})
}

// dialReset dials who resets at once, which may be before the dial is over.
func dialReset(t *testing.T, address string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err == nil {
		_ = c.Close()
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
}

// localAddr is an IPv4 address of this machine's that is not a loopback one, if it
// has one.
func localAddr(t *testing.T) []string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return []string{n.IP.String()}
		}
	}
	return nil
}

// headerTo is what a trusted proxy says of a client that wanted to go there.
func headerTo(to string) string {
	host, port, _ := net.SplitHostPort(to)
	return fmt.Sprintf("PROXY TCP4 192.0.2.7 %s 1000 %s\r\n", host, port)
}

// A proxy that is trusted says where its client wanted to go.
func TestOriginalDestinationOfHeader(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		a, b := newBackend(t, loopback(t, "tcp4")), newBackend(t, loopback(t, "tcp4"))
		r := startRelay(t, w, toOriginal(proxy.Listener{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}), proxy.Hooks{})
		for _, backend := range []*backend{a, b, a} {
			c := r.dial(t)
			send(t, c, headerTo(backend.addr.String())+"hello")
			server := backend.next(t)
			expect(t, server, "hello")
			_ = c.Close()
			expectEnd(t, server)
			_ = server.Close()
			if e := receive(t, r.ended, "the end"); e.Server != proxy.OriginalDestination || e.Target != backend.addr.String() {
				t.Errorf("it ended with %s, %s", e.Server, e.Target)
			}
		}
		for text, want := range map[string]proxy.FailReason{
			headerTo(r.Addrs("relay")[0].String()): proxy.NoDestination,
			headerTo("0.0.0.0:80"):                 proxy.NoDestination,
			headerTo("224.0.0.1:80"):               proxy.NoDestination,
			headerTo("127.0.0.1:0"):                proxy.NoDestination,
			"PROXY UNKNOWN\r\n":                    proxy.NoDestination,
			headerTo(dead(t).String()):             proxy.ConnectRefused,
		} {
			c := r.dial(t)
			send(t, c, text)
			if f := receive(t, r.failed, "the failure"); f.Reason != want {
				t.Errorf("%q: %s, %v; want %s", text, f.Reason, f.Err, want)
			}
			_ = c.Close()
		}
		s := r.Upstreams()[0].Servers[0]
		if s.Connected != 3 || s.ConnectFailed != 1 || s.Active != 0 || s.Ejected {
			t.Errorf("%+v", s)
		}
	})
}

// Two connections of one machine may have one port, to two places: a client that comes from where the
// proxy has connected from is not taken for the proxy itself, unless it also goes where that went.
func TestOriginalDestinationFromSharedPort(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		a, b := newBackend(t, loopback(t, "tcp4")), newBackend(t, loopback(t, "tcp4"))
		r := startRelay(t, w, toOriginal(proxy.Listener{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}), proxy.Hooks{})
		first := r.dial(t)
		send(t, first, headerTo(a.addr.Address)+"hello")
		server := a.next(t)
		expect(t, server, "hello")
		port := server.RemoteAddr().(*net.TCPAddr).Port
		const portRange = 51 // IP_LOCAL_PORT_RANGE, Linux 6.3
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
			cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, portRange, port<<16|port) })
			return errors.Join(err, cerr)
		}}
		dial := func() net.Conn {
			t.Helper()
			c, err := d.DialContext(t.Context(), "tcp4", r.Addrs("relay")[0].String())
			if err != nil {
				t.Fatal(err)
			}
			if at := c.LocalAddr().(*net.TCPAddr).Port; at != port {
				t.Fatalf("it comes from port %d, want %d", at, port)
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			return c
		}
		second := dial()
		send(t, second, headerTo(b.addr.Address)+"elsewhere")
		other := b.next(t)
		expect(t, other, "elsewhere")
		for _, c := range []net.Conn{second, other} {
			if err := c.(*net.TCPConn).SetLinger(0); err != nil { // which leaves the port free
				t.Fatal(err)
			}
			_ = c.Close()
		}
		receive(t, r.ended, "the end")
		third := dial()
		defer third.Close()
		send(t, third, headerTo(a.addr.Address))
		if f := receive(t, r.failed, "the failure"); f.Reason != proxy.NoDestination || !strings.Contains(f.Err.Error(), "this proxy's own") {
			t.Errorf("%s, %v", f.Reason, f.Err)
		}
		send(t, first, "goes on")
		expect(t, server, "goes on")
	})
}

// A client that has come by a unix socket has no address to connect from.
func TestClientSourceOfUnix(t *testing.T) {
	testnet.Leaks(t)
	c := oneUpstream(proxy.Upstream{Servers: proxy.Targets("127.0.0.1:1"), SourceAddress: proxy.Source{Client: true}})
	path := loopback(t, "unix")
	c.Listeners["relay"] = proxy.Listener{Address: []string{path.String()}, Upstream: "u"}
	r := startRelay(t, func(ln net.Listener) net.Listener { return ln }, c, proxy.Hooks{})
	conn, err := net.Dial("unix", path.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if f := receive(t, r.failed, "the failure"); f.Reason != proxy.ClientSource {
		t.Errorf("%s, %v", f.Reason, f.Err)
	}
	if s := r.Upstreams()[0].Servers[0]; s.ConnectFailed != 0 || s.Active != 0 {
		t.Errorf("%+v", s)
	}
}

// A client is sent to a server of its own family, and is told if there is none.
func TestClientSourceFamily(t *testing.T) {
	testnet.Leaks(t)
	r := startRelay(t, func(ln net.Listener) net.Listener { return ln }, oneUpstream(proxy.Upstream{
		Servers: proxy.Targets("[::1]:1", "[::1]:2"), SourceAddress: proxy.Source{Client: true}, Balance: proxy.Maglev,
	}), proxy.Hooks{})
	dialReset(t, r.Addrs("relay")[0].String())
	if f := receive(t, r.failed, "the failure"); f.Reason != proxy.ClientSource || !strings.Contains(f.Err.Error(), "no server has an address of that family") {
		t.Errorf("%s, %v", f.Reason, f.Err)
	}
}

// Where a client wanted to go is one way among others: routes come first, a TLS
// session may end here, and the server is told by a PROXY header what was dialled.
func TestOriginalDestinationBesideRoutes(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		ca := newIssuer(t)
		there, other := newBackend(t, loopback(t, "tcp4")), newBackend(t, loopback(t, "tcp4"))
		l := proxy.Listener{
			ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			TLS:       &proxy.ListenerTLS{Certificates: []proxy.KeyPair{issue(t, ca, "a", 1, "a.example", "b.example")}},
			Routes:    []proxy.Route{{SNI: []string{"b.example"}, Upstream: "other"}},
		}
		c := toOriginal(l)
		u := c.Upstreams["there"]
		u.SendProxy = "v1"
		c.Upstreams["there"] = u
		c.Upstreams["other"] = proxy.Upstream{Servers: proxy.Targets(other.addr.String())}
		r := startRelay(t, w, c, proxy.Hooks{})
		for name, backend := range map[string]*backend{"a.example": there, "b.example": other} {
			raw := r.dial(t)
			send(t, raw, headerTo(there.addr.String()))
			client := tls.Client(raw, &tls.Config{ServerName: name, RootCAs: ca.Pool})
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			send(t, client, "question")
			server := backend.next(t)
			if backend == there {
				expect(t, server, headerTo(there.addr.String()))
			}
			expect(t, server, "question")
			_ = client.Close()
			expectEnd(t, server)
			_ = server.Close()
			if e := receive(t, r.ended, "the end"); e.Target != backend.addr.String() || e.Stats.AToB.Why.String() != "tls" {
				t.Errorf("%s ended with %s, %v", name, e.Target, e.Stats.AToB.Why)
			}
		}
	})
}
