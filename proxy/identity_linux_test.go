package proxy_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/internal/proxyproto"
)

// readHeader reads a PROXY header, and nothing behind it.
func readHeader(t *testing.T, c net.Conn) proxyproto.Header {
	t.Helper()
	var got []byte
	for {
		h, size, need, err := proxyproto.Parse(got)
		if err != nil {
			t.Fatal(err)
		}
		if need == 0 {
			if size != len(got) {
				t.Fatalf("%d bytes too many were read", len(got)-size)
			}
			return h
		}
		more := make([]byte, 1)
		if _, err := io.ReadFull(c, more); err != nil {
			t.Fatal(err)
		}
		got = append(got, more...)
	}
}

// Clients that must show a certificate are let in with a good one only, and the
// server behind is told who they are.
func TestClientCertificates(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		ca, stranger := newIssuer(t), newIssuer(t)
		load := func(pair proxy.KeyPair) tls.Certificate {
			t.Helper()
			c, err := tls.LoadX509KeyPair(pair.Certificate, pair.Key)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		own, foreign := load(issue(t, ca, "somebody", 7)), load(issue(t, stranger, "somebody", 8))
		for _, asked := range []proxy.ClientCertificate{"required", "optional", "none"} {
			b := newBackend(t, loopback(t, "tcp4"))
			listener := proxy.ListenerTLS{Certificates: []proxy.KeyPair{issue(t, ca, "a", 1, "a.example")}, ClientCertificate: asked, ClientCA: ca.Path}
			r := startRelay(t, w, proxy.Config{
				Listeners: map[string]proxy.Listener{"relay": {Address: []string{"127.0.0.1:0"}, Upstream: "u", TLS: &listener}},
				Upstreams: map[string]proxy.Upstream{"u": {Servers: proxy.Targets(b.addr.String()), SendProxy: "v2"}},
			}, proxy.Hooks{})
			for name, show := range map[string]*tls.Certificate{"its own": &own, "a foreign one": &foreign, "none": nil} {
				config := &tls.Config{ServerName: "a.example", RootCAs: ca.Pool}
				if show != nil {
					config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return show, nil }
				}
				c, err := r.dialTLS(t, config)
				if err == nil { // in TLS 1.3 the server says so later
					_, err = c.Write([]byte("hello"))
				}
				if show == nil && asked == "required" || show == &foreign && asked != "none" {
					if f := receive(t, r.failed, "the failure"); f.Reason != proxy.HandshakeFailed {
						t.Errorf("%s, %s: %s, %v", asked, name, f.Reason, f.Err)
					}
					if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate") && !strings.Contains(err.Error(), "unknown") {
						t.Errorf("%s, %s: the client sees %v", asked, name, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				server := b.next(t)
				h := readHeader(t, server)
				expect(t, server, "hello")
				ssl, ok := h.Value(proxyproto.TypeSSL)
				if !ok || len(ssl) < 5 {
					t.Fatalf("%s, %s: the header has no SSL: %+v", asked, name, h)
				}
				// haproxy's proxy-protocol.txt, 2.2.6: a bit of the first byte says that one
				// was shown, the next four are 0 if it was good.
				shown := show != nil && asked != "none"
				if ssl[0]&2 != 0 != shown || (binary.BigEndian.Uint32(ssl[1:]) == 0) != shown || bytes.Contains(ssl, []byte("somebody")) != shown {
					t.Errorf("%s, %s: the server is told %q", asked, name, ssl)
				}
			}
			_ = r.Close()
		}
	})
}

// Sessions with servers keep to the lowest version, offer what was negotiated with
// the client, and verify the name by which a server is configured.
func TestOriginateWhatIsKnown(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		ca := newIssuer(t)
		pair := issue(t, ca, "server", 1, "s.test")
		certificate, err := tls.LoadX509KeyPair(pair.Certificate, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		addr, seen := tlsBackend(t, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"one", "two"}, MaxVersion: tls.VersionTLS12})
		dns := newNameServer(t)
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		dns.set(t, "s.test.", 60, "127.0.0.1")
		dns.set(t, "other.test.", 60, "127.0.0.1")
		front := &proxy.ListenerTLS{Certificates: []proxy.KeyPair{issue(t, ca, "a", 2, "a.example")}, ALPN: []string{"two"}}
		for name, tt := range map[string]struct {
			host string
			tls  proxy.UpstreamTLS
			want string
		}{
			"by its name":       {"s.test", proxy.UpstreamTLS{CA: ca.Path}, ""},
			"by another name":   {"other.test", proxy.UpstreamTLS{CA: ca.Path}, "not other.test"},
			"too old a version": {"s.test", proxy.UpstreamTLS{CA: ca.Path, MinVersion: "1.3"}, "protocol version"},
		} {
			r := startRelay(t, w, proxy.Config{
				Listeners: map[string]proxy.Listener{"relay": {Address: []string{"127.0.0.1:0"}, Upstream: "u", TLS: front}},
				Upstreams: map[string]proxy.Upstream{"u": {
					Servers: proxy.Targets(tt.host + ":" + port), TLS: &tt.tls, Resolve: proxy.Resolve{Servers: []string{dns.addr}},
				}},
			}, proxy.Hooks{})
			c, err := r.dialTLS(t, &tls.Config{ServerName: "a.example", RootCAs: ca.Pool, NextProtos: []string{"one", "two"}})
			if err != nil {
				t.Fatal(err)
			}
			if tt.want != "" {
				if f := receive(t, r.failed, "the failure"); f.Reason != proxy.ConnectTLS || !strings.Contains(f.Err.Error(), tt.want) {
					t.Errorf("%s: %s, %v; want %q", name, f.Reason, f.Err, tt.want)
				}
				continue
			}
			send(t, c, "hello")
			closeWrite(t, c)
			expect(t, c, "HELLO")
			if state := receive(t, seen, "the session"); state.ServerName != "s.test" || state.NegotiatedProtocol != "two" {
				t.Errorf("%s: the server saw %q, %q", name, state.ServerName, state.NegotiatedProtocol)
			}
			_ = r.Close()
		}
	})
}

// bare are connections without a descriptor to be had, as those of a network stack
// that is not the kernel's.
type bare struct{ net.Listener }

func (l bare) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return bareConn{c}, nil
}

type bareConn struct{ net.Conn }

func (c bareConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// Connections without a descriptor take the same ways: what was read of them to know
// which comes first.
func TestBareConnections(t *testing.T) {
	testnet.Leaks(t)
	ca := newIssuer(t)
	w := func(ln net.Listener) net.Listener { return bare{ln} }
	l := proxy.Listener{Upstream: "rest", Routes: []proxy.Route{{SNI: []string{"a.example"}, Upstream: "a"}}}
	n := newTown(t, w, l, "a", "rest")
	hello := clientHello(t, "a.example")
	n.get(t, "a", hello)
	n.get(t, "a", hello[:9], hello[9:])
	n.get(t, "rest", "GET / HTTP/1.1\r\n\r\n")

	l.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	l.TLS = &proxy.ListenerTLS{Certificates: []proxy.KeyPair{issue(t, ca, "a", 1, "a.example")}}
	n = newTown(t, w, l, "a", "rest")
	conn := n.dial(t)
	send(t, conn, "PROXY TCP4 192.0.2.7 192.0.2.8 1000 443\r\n")
	c := tls.Client(conn, &tls.Config{ServerName: "a.example", RootCAs: ca.Pool})
	send(t, c, "hello")
	b := n.backends["a"].next(t)
	expect(t, b, "hello")
	send(t, b, "answer")
	expect(t, c, "answer")
	closeWrite(t, c)
	expectEnd(t, b)
	_ = b.Close()
	expectEnd(t, c)
	if e := receive(t, n.ended, "the end"); e.Client != "192.0.2.7:1000" || e.Result.Err() != nil {
		t.Errorf("client %s, %v", e.Client, e.Result)
	}
}
