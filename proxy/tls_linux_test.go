package proxy_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/internal/proxyproto"
	"github.com/spliced-io/spliced/proxy/internal/testcert"
	"github.com/spliced-io/spliced/splice"
)

func newIssuer(t *testing.T) *testcert.Issuer {
	t.Helper()
	ca, err := testcert.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *testcert.Issuer, name string, serial int64, hosts ...string) proxy.KeyPair {
	t.Helper()
	certificate, key, err := ca.Issue(name, serial, false, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return proxy.KeyPair{Certificate: certificate, Key: key}
}

// dialTLS connects and shakes hands.
func (r *relay) dialTLS(t *testing.T, config *tls.Config) (*tls.Conn, error) {
	t.Helper()
	c := tls.Client(r.dial(t), config)
	return c, c.Handshake()
}

func TestTerminateTLS(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		ca := newIssuer(t)
		n := newTown(t, w, proxy.Listener{
			TLS: &proxy.ListenerTLS{
				Certificates: []proxy.KeyPair{issue(t, ca, "a", 1, "a.example"), issue(t, ca, "b", 2, "b.example")},
				ALPN:         []string{"h2", "http/1.1"}, MinVersion: "1.3", ClientCertificate: "optional", ClientCA: ca.Path,
			},
			Upstream: "rest",
			Routes: []proxy.Route{
				{SNI: []string{"a.example"}, ALPN: []string{"h2"}, Upstream: "h2"},
				{SNI: []string{"b.example"}, Upstream: "b"},
			},
		}, "h2", "b", "rest")
		for _, tt := range []struct {
			host, alpn, backend string
			serial              int64
		}{{"a.example", "h2", "h2", 1}, {"a.example", "http/1.1", "rest", 1}, {"b.example", "h2", "b", 2}} {
			c, err := n.dialTLS(t, &tls.Config{ServerName: tt.host, RootCAs: ca.Pool, NextProtos: []string{tt.alpn}})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.ConnectionState(); got.PeerCertificates[0].SerialNumber.Int64() != tt.serial || got.NegotiatedProtocol != tt.alpn {
				t.Errorf("%+v: certificate %v, protocol %q", tt, got.PeerCertificates[0].SerialNumber, got.NegotiatedProtocol)
			}
			send(t, c, "question")
			b := n.backends[tt.backend].next(t)
			expect(t, b, "question")
			// Each side ends for itself.
			closeWrite(t, c)
			expectEnd(t, b)
			send(t, b, "answer")
			b.Close()
			expect(t, c, "answer")
			expectEnd(t, c)
			c.Close()
			e := receive(t, n.ended, "the end")
			if why := e.Stats.AToB.Why.String(); why != "tls" || e.Result.Err() != nil || e.Stats.AToB.Bytes != 8 || e.Stats.BToA.Bytes != 6 {
				t.Errorf("%+v: carried for %q, %v, %v", tt, why, e.Result, e.Result.Err())
			}
		}

		// A reset is passed on, and is no clean end.
		c, err := n.dialTLS(t, &tls.Config{ServerName: "b.example", RootCAs: ca.Pool})
		if err != nil {
			t.Fatal(err)
		}
		b := n.backends["b"].next(t)
		send(t, b, "so far")
		expect(t, c, "so far")
		_ = b.(*net.TCPConn).SetLinger(0)
		b.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after a reset: %v", err)
		}

		for want, config := range map[string]*tls.Config{
			"protocol version": {ServerName: "a.example", RootCAs: ca.Pool, MaxVersion: tls.VersionTLS12},
		} {
			// It is told why, and that is no clean end.
			c, err := n.dialTLS(t, config)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: the client sees %v", want, err)
			}
			expectReset(t, c.NetConn())
			if f := receive(t, n.failed, "the failure"); f.Reason != proxy.HandshakeFailed || !strings.Contains(f.Err.Error(), "TLS with the client") {
				t.Errorf("%s: it failed with %v, %v", want, f.Reason, f.Err)
			}
		}
		if f := n.get(t, "", "GET / HTTP/1.1\r\n"); f.Reason != proxy.HandshakeFailed || !strings.Contains(f.Err.Error(), "does not speak TLS") {
			t.Errorf("without TLS: %v, %v", f.Reason, f.Err)
		}
	})
}

func TestTLSHandshakeTimeout(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		ca := newIssuer(t)
		n := newTown(t, w, proxy.Listener{
			TLS:              &proxy.ListenerTLS{Certificates: []proxy.KeyPair{issue(t, ca, "a", 1, "a.example")}},
			HandshakeTimeout: proxy.Timeout(100 * time.Millisecond), Upstream: "a",
		}, "a")
		hello := clientHello(t, "a.example")
		for _, part := range []string{"", hello[:10], hello} { // the last waits for the answer's answer
			c := n.dialRefused(t, part)
			if f := receive(t, n.failed, "the failure"); !strings.Contains(f.Err.Error(), "in time") && !strings.Contains(f.Err.Error(), "does not speak") {
				t.Errorf("%d bytes: %v", len(part), f.Err)
			}
			// In the middle of a handshake there is no end that could be taken for one.
			if c == nil {
				continue
			}
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%d bytes: the end is %v", len(part), err)
			}
		}
	})
}

func TestCertificatesAreReadAgain(t *testing.T) {
	testnet.Leaks(t)
	ca := newIssuer(t)
	n := newTown(t, loops, proxy.Listener{
		TLS: &proxy.ListenerTLS{Certificates: []proxy.KeyPair{issue(t, ca, "a", 1, "a.example")}}, Upstream: "a",
	}, "a")
	serial := func() int64 {
		t.Helper()
		c, err := n.dialTLS(t, &tls.Config{ServerName: "a.example", RootCAs: ca.Pool})
		if err != nil {
			t.Fatal(err)
		}
		n.backends["a"].next(t)
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Fatalf("certificate %d", got)
	}
	issue(t, ca, "a", 2, "a.example")
	n.RefreshFiles()
	if c := receive(t, n.changed, "the new files"); c.What != proxy.FilesRead || c.Listener != "relay" || c.Err != nil {
		t.Errorf("told of %+v", c)
	}
	if got := serial(); got != 2 {
		t.Errorf("certificate %d after the change", got)
	}
	// A reload that names a broken file changes nothing.
	c := n.CurrentConfig()
	l := c.Listeners["relay"]
	l.TLS = &proxy.ListenerTLS{Certificates: []proxy.KeyPair{{Certificate: "/nonexistent.pem"}}}
	c.Listeners = map[string]proxy.Listener{"relay": l}
	if err := n.Reload(t.Context(), c); err == nil || !strings.Contains(err.Error(), "listener relay: tls: certificate: open /nonexistent.pem") {
		t.Errorf("reload: %v", err)
	}
	if got := serial(); got != 2 {
		t.Errorf("certificate %d after a refused reload", got)
	}
}

// tlsBackend serves TLS: it sends what it receives back, in upper case.
func tlsBackend(t *testing.T, config *tls.Config) (addr string, seen <-chan tls.ConnectionState) {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	states := make(chan tls.ConnectionState, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			if c.(*tls.Conn).Handshake() == nil {
				states <- c.(*tls.Conn).ConnectionState()
				b, _ := io.ReadAll(c)
				_, _ = c.Write(bytes.ToUpper(b))
			}
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return ln.Addr().String(), states
}

func TestOriginateTLS(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		ca, stranger := newIssuer(t), newIssuer(t)
		serverPair, clientPair := issue(t, ca, "server", 1, "s.example"), issue(t, ca, "client", 7)
		certificate, err := tls.LoadX509KeyPair(serverPair.Certificate, serverPair.Key)
		if err != nil {
			t.Fatal(err)
		}
		addr, seen := tlsBackend(t, &tls.Config{
			Certificates: []tls.Certificate{certificate}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: ca.Pool, NextProtos: []string{"echo"},
		})
		for name, tt := range map[string]struct {
			tls  proxy.UpstreamTLS
			want string
		}{
			"good":           {proxy.UpstreamTLS{ServerName: "s.example", CA: ca.Path, ALPN: []string{"echo"}, Certificate: clientPair.Certificate, Key: clientPair.Key}, ""},
			"another issuer": {proxy.UpstreamTLS{ServerName: "s.example", CA: stranger.Path}, "unknown authority"},
			"the address":    {proxy.UpstreamTLS{CA: ca.Path}, "127.0.0.1"},
			"unverified":     {proxy.UpstreamTLS{NoVerify: true, ALPN: []string{"echo"}}, ""},
		} {
			c := proxy.Config{
				Listeners: map[string]proxy.Listener{"relay": {Address: []string{"127.0.0.1:0"}, Upstream: "u"}},
				Upstreams: map[string]proxy.Upstream{"u": {Servers: proxy.Targets(addr), TLS: &tt.tls}},
			}
			r := startRelay(t, w, c, proxy.Hooks{})
			if tt.want != "" {
				r.dialRefused(t, "hello")
				if f := receive(t, r.failed, "the failure"); f.Reason != proxy.ConnectTLS || !strings.Contains(f.Err.Error(), "TLS with "+addr) || !strings.Contains(f.Err.Error(), tt.want) {
					t.Errorf("%s: %v, %v, want %q", name, f.Reason, f.Err, tt.want)
				}
				continue
			}
			conn := r.dial(t)
			send(t, conn, "hello")
			closeWrite(t, conn)
			expect(t, conn, "HELLO")
			expectEnd(t, conn)
			state := receive(t, seen, "the session")
			if tt.tls.ServerName != "" && (state.ServerName != "s.example" || len(state.PeerCertificates) != 1) || state.NegotiatedProtocol != "echo" {
				t.Errorf("%s: the server saw %q, %d certificates, %q", name, state.ServerName, len(state.PeerCertificates), state.NegotiatedProtocol)
			}
			if e := receive(t, r.ended, "the end"); e.Stats.AToB.Why.String() != "tls" || e.Result.Err() != nil {
				t.Errorf("%s: %v, %v", name, e.Stats.AToB.Why, e.Result.Err())
			}
		}
	})
}

// What the server is told of the client.
func TestSendProxy(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		ca := newIssuer(t)
		for _, version := range []proxy.ProxyVersion{"v1", "v2"} {
			b := newBackend(t, loopback(t, "tcp4"))
			listener := proxy.Listener{Address: []string{"127.0.0.1:0"}, Upstream: "u"}
			config := func() proxy.Config {
				return proxy.Config{
					Listeners: map[string]proxy.Listener{"relay": listener},
					Upstreams: map[string]proxy.Upstream{"u": {Servers: proxy.Targets(b.addr.String()), SendProxy: version}},
				}
			}
			r := startRelay(t, w, config(), proxy.Hooks{})
			header := func() (proxyproto.Header, net.Conn) {
				t.Helper()
				c := b.next(t)
				return readHeader(t, c), c
			}
			c := r.dial(t)
			send(t, c, "hello")
			h, server := header()
			expect(t, server, "hello")
			if "v"+string(rune('0'+h.Version)) != string(version) || h.Source.String() != c.LocalAddr().String() || h.Destination.String() != r.addr.Address {
				t.Errorf("%s: %+v", version, h)
			}
			c.Close()
			expectEnd(t, server)
			server.Close()
			if e := receive(t, r.ended, "the end"); e.Stats.AToB.Bytes != 5 || e.Stats.AToB.Why.String() == "tls" {
				t.Errorf("%s: %+v", version, e.Stats)
			}
			if version == "v1" {
				continue
			}
			// Told by another proxy, and by a TLS session that ends here.
			listener.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
			listener.TLS = &proxy.ListenerTLS{Certificates: []proxy.KeyPair{issue(t, ca, "a", 1, "a.example")}, ALPN: []string{"h2"}}
			if err := r.Reload(t.Context(), config()); err != nil {
				t.Fatal(err)
			}
			before, err := proxyproto.Append(nil, &proxyproto.Header{
				Version: 2, Source: netip.MustParseAddrPort("192.0.2.1:1"), Destination: netip.MustParseAddrPort("192.0.2.2:2"),
				TLVs: []proxyproto.TLV{{Type: 0xe5, Value: []byte("kept")}, {Type: proxyproto.TypeAuthority, Value: []byte("other")}},
			}, true)
			if err != nil {
				t.Fatal(err)
			}
			conn := r.dial(t)
			send(t, conn, string(before))
			session := tls.Client(conn, &tls.Config{ServerName: "a.example", RootCAs: ca.Pool, NextProtos: []string{"h2"}})
			send(t, session, "hello")
			h, server = header()
			expect(t, server, "hello")
			for kind, want := range map[byte]string{0xe5: "kept", proxyproto.TypeAuthority: "a.example", proxyproto.TypeALPN: "h2"} {
				if got, _ := h.Value(kind); string(got) != want {
					t.Errorf("value %#x: %q, want %q", kind, got, want)
				}
			}
			if ssl, _ := h.Value(proxyproto.TypeSSL); !bytes.Contains(ssl, []byte("TLSv1.3")) {
				t.Errorf("SSL: %q", ssl)
			}
			if h.Source.String() != "192.0.2.1:1" || h.Destination.String() != "192.0.2.2:2" {
				t.Errorf("%+v", h)
			}
		}
	})
}

func TestSourceAddress(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		r := startRelay(t, w, proxy.Config{
			Listeners: map[string]proxy.Listener{"relay": {Address: []string{"127.0.0.1:0"}, Upstream: "u"}},
			Upstreams: map[string]proxy.Upstream{"u": {Servers: proxy.Targets(b.addr.String()), SourceAddress: proxy.Source{Addr: netip.MustParseAddr("127.0.0.9")}}},
		}, proxy.Hooks{})
		send(t, r.dial(t), "hello")
		server := b.next(t)
		expect(t, server, "hello")
		if host, _, _ := net.SplitHostPort(server.RemoteAddr().String()); host != "127.0.0.9" {
			t.Errorf("connected from %s", host)
		}
	})
}

func TestBandwidth(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		const size, rate = 1 << 20, 2 << 20
		up, down := proxy.Bandwidth{ToServer: rate}, proxy.Bandwidth{ToClient: rate}
		for name, l := range map[string]proxy.Listener{
			"connection, to the server": {Limits: proxy.Limits{Bandwidth: up}},
			"connection, to the client": {Limits: proxy.Limits{Bandwidth: down}},
			"listener, to the server":   {Bandwidth: up},
			"listener, to the client":   {Bandwidth: down},
		} {
			l.Upstream = "a"
			n := newTown(t, w, l, "a")
			from, began := n.dial(t), time.Now()
			to := n.backends["a"].next(t)
			if strings.HasSuffix(name, "client") {
				from, to = to, from
			}
			sent := make(chan error, 1)
			go func() {
				_, err := from.Write(make([]byte, size))
				sent <- errors.Join(err, from.(*net.TCPConn).CloseWrite())
			}()
			if got, err := io.Copy(io.Discard, to); got != size || err != nil {
				t.Errorf("%s: %d bytes, %v", name, got, err)
			}
			if took, least := time.Since(began), time.Second*(size-rate/10)/rate; took < least {
				t.Errorf("%s: %d bytes took %v, want at least %v", name, size, took, least)
			}
			if err := <-sent; err != nil {
				t.Errorf("%s: %v", name, err)
			}
			_ = to.Close()
			receive(t, n.ended, "the end")
		}
	})
}

func TestCheckOfTLS(t *testing.T) {
	t.Parallel()
	c := proxy.Config{
		Listeners: map[string]proxy.Listener{
			"none":   {Address: []string{":1"}, Upstream: "plain", TLS: &proxy.ListenerTLS{}},
			"client": {Address: []string{":2"}, Upstream: "plain", TLS: &proxy.ListenerTLS{Certificates: []proxy.KeyPair{{Certificate: "a"}}, ClientCertificate: "required"}},
			"wire":   {Address: []string{":3"}, Upstream: "plain", Engine: splice.EngineWire, TLS: &proxy.ListenerTLS{Certificates: []proxy.KeyPair{{Certificate: "a"}}}},
			"server": {Address: []string{":4"}, Routes: []proxy.Route{{Upstream: "secret"}}, Engine: splice.EngineWire},
		},
		Upstreams: map[string]proxy.Upstream{
			"plain": {Servers: proxy.Targets("127.0.0.1:1")}, "secret": {Servers: proxy.Targets("127.0.0.1:1"), TLS: &proxy.UpstreamTLS{}},
		},
	}
	got := map[string]bool{}
	for _, p := range c.Check() {
		got[strings.Join(p.Path, ".")] = true
	}
	for _, want := range []string{"listeners.none.tls.certificates", "listeners.client.tls.client_ca", "listeners.wire.engine", "listeners.server.engine"} {
		if !got[want] {
			t.Errorf("no problem at %s: %v", want, got)
		}
	}
}
