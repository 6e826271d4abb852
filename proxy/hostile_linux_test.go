package proxy_test

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// The ways in which a client leaves, or stays.
const (
	leavesByRST = "RST"
	leavesByFIN = "FIN"
	halfCloses  = "half-close"
	staysMute   = "silence"
)

// depart leaves a connection in one of them.
func depart(t *testing.T, c net.Conn, how string) {
	t.Helper()
	switch how {
	case leavesByRST:
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	case leavesByFIN:
		_ = c.Close()
	case halfCloses:
		_ = c.(*net.TCPConn).CloseWrite() // it may be reset already
	}
}

// everyDeparture are those of one who is not waited for.
var everyDeparture = []string{leavesByRST, leavesByFIN, halfCloses}

// expectNothingLeft wants nothing of any client to be counted as there.
func (r *relay) expectNothingLeft(t *testing.T, when string) {
	t.Helper()
	if got := settled(func() int { return r.Stats().Open }, 0); got != 0 {
		t.Errorf("%s: %d connections are open", when, got)
	}
	for _, u := range r.Upstreams() {
		if u.Queued != 0 {
			t.Errorf("%s: %d wait in the queue of %s", when, u.Queued, u.Name)
		}
		for _, s := range u.Servers {
			if s.Active != 0 {
				t.Errorf("%s: %s has %d connections", when, s.Name, s.Active)
			}
		}
	}
	st := r.Stats()
	if st.Accepted != st.Failed+st.Ended {
		t.Errorf("%s: %d accepted, %d failed, %d ended", when, st.Accepted, st.Failed, st.Ended)
	}
	for _, l := range r.Listeners() {
		var failed, ended uint64
		for _, n := range l.Failures {
			failed += n
		}
		for key, n := range l.Ends {
			if !key.ToClient {
				ended += n
			}
		}
		if failed != l.Failed || ended != l.Ended {
			t.Errorf("%s: %s: %d failed for a reason, %d in all; %d ended for one, %d in all", when, l.Name, failed, l.Failed, ended, l.Ended)
		}
	}
}

// Whoever leaves before he has said what the listener has to know has left, and is not
// said to be slow, or the server to have reset him; who stays and does not say it is
// late; and what can't be right is the client's fault.
func TestHostileBeforeServer(t *testing.T) {
	hello := func(t *testing.T) string { return clientHello(t, "a.example") }
	said := func(s string) func(*testing.T) string { return func(*testing.T) string { return s } }
	const v2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11"
	looking := proxy.Listener{Upstream: "rest", Routes: []proxy.Route{{SNI: []string{"a.example"}, Upstream: "a"}}}
	behind := proxy.Listener{Upstream: "rest", ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	both := behind
	both.Routes = looking.Routes
	ends := looking
	for _, tt := range []struct {
		name     string
		listener proxy.Listener
		tls      bool
		says     func(*testing.T) string
		how      []string
		want     proxy.FailReason
	}{
		{"nothing of a first message", looking, false, said(""), everyDeparture, proxy.ClientLeft},
		{"half a hello", looking, false, func(t *testing.T) string { return hello(t)[:99] }, everyDeparture, proxy.ClientLeft},
		{"half a hello, and stays", looking, false, func(t *testing.T) string { return hello(t)[:99] }, []string{staysMute}, proxy.HandshakeTimeout},
		{"the first of two records", looking, false, func(t *testing.T) string {
			h := hello(t)
			return h[:3] + "\x00\x28" + h[5:45]
		}, everyDeparture, proxy.ClientLeft},
		{"a record header", looking, false, said("\x16\x03\x01\x40\x00"), everyDeparture, proxy.ClientLeft},
		{"nothing of a PROXY header", behind, false, said(""), everyDeparture, proxy.ClientLeft},
		{"nothing of a PROXY header, and stays", behind, false, said(""), []string{staysMute}, proxy.HandshakeTimeout},
		{"half a PROXY header", behind, false, said("PROXY TCP4 192.0."), everyDeparture, proxy.ClientLeft},
		{"half a binary one", behind, false, said(v2 + "\x01\x00\xc0\x00"), everyDeparture, proxy.ClientLeft},
		{"half a binary one, and stays", behind, false, said(v2 + "\x01\x00\xc0\x00"), []string{staysMute}, proxy.HandshakeTimeout},
		{"no PROXY header", behind, false, said("GET / HTTP/1.1\r\n\r\n"), everyDeparture, proxy.BadHeader},
		{"a header without an end", behind, false, said("PROXY " + strings.Repeat("A", 200)), everyDeparture, proxy.BadHeader},
		{"a huge one", behind, false, said(v2 + "\xff\xff" + strings.Repeat("\x00", 100)), everyDeparture, proxy.BadHeader},
		{"values longer than it", behind, false, said(v2 + "\x00\x12\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x01\x00\x02\x04\xff\xff\x00\x00\x00"), everyDeparture, proxy.BadHeader},
		{"a PROXY header and half a hello", both, false, func(t *testing.T) string {
			return "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + hello(t)[:99]
		}, everyDeparture, proxy.ClientLeft},
		{"a PROXY header and nothing", both, false, said("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), everyDeparture, proxy.ClientLeft},
		{"a PROXY header and half a hello, and stays", both, false, func(t *testing.T) string {
			return "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + hello(t)[:99]
		}, []string{staysMute}, proxy.HandshakeTimeout},
		{"nothing of a TLS session", ends, true, said(""), everyDeparture, proxy.ClientLeft},
		{"half a hello of one", ends, true, func(t *testing.T) string { return hello(t)[:99] }, everyDeparture, proxy.ClientLeft},
		{"a hello of one", ends, true, hello, everyDeparture, proxy.ClientLeft},
		{"a hello of one, and stays", ends, true, hello, []string{staysMute}, proxy.HandshakeTimeout},
		{"a hello of one and garbage", ends, true, func(t *testing.T) string { return hello(t) + "garbage of some length" }, []string{staysMute}, proxy.HandshakeFailed},
		{"another protocol", ends, true, said("SSH-2.0-test\r\n"), everyDeparture, proxy.HandshakeFailed},
		{"a hello of SSLv2", ends, true, said("\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + strings.Repeat("x", 40)), everyDeparture, proxy.HandshakeFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, w way) {
				testnet.Leaks(t)
				l := tt.listener
				l.HandshakeTimeout = proxy.Timeout(time.Hour)
				if tt.how[0] == staysMute {
					l.HandshakeTimeout = proxy.Timeout(150 * time.Millisecond)
				}
				if tt.tls {
					ca := newIssuer(t)
					l.TLS = &proxy.ListenerTLS{Certificates: []proxy.KeyPair{issue(t, ca, "a", 1, "a.example")}, ClientCertificate: "required", ClientCA: ca.Path}
				}
				n := newTown(t, w, l, "a", "rest")
				for _, how := range tt.how {
					c := n.dialRefused(t, tt.says(t))
					if c != nil {
						depart(t, c, how)
					}
					f := receive(t, n.failed, how)
					if how == leavesByRST && f.Reason == proxy.ClientLeft {
						continue // it takes with it what was said
					}
					if f.Reason != tt.want {
						t.Errorf("%s: %s, %v; want %s", how, f.Reason, f.Err, tt.want)
					}
					n.expectNothingLeft(t, how)
				}
			})
		})
	}
}

// What is odd and may be is passed on as it is.
func TestOddIsPassedOn(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		n := newTown(t, w, proxy.Listener{Upstream: "rest", Routes: []proxy.Route{{SNI: []string{"a.example"}, Upstream: "a"}}}, "a", "rest")
		hello := clientHello(t, "a.example")
		for name, says := range map[string]string{
			"a hello of SSLv2":         "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + strings.Repeat("x", 40),
			"garbage before a hello":   "\x00" + hello,
			"a record of 64 KiB":       "\x16\x03\x01\xff\xff\x01" + strings.Repeat("x", 70<<10),
			"a hello of 16 MiB":        "\x16\x03\x01\x40\x00\x01\xff\xff\xff" + strings.Repeat("x", 20<<10),
			"empty records":            "\x16\x03\x01\x00\x00\x16\x03\x01\x00\x00" + hello,
			"a hello in tiny records":  tinyRecords(hello),
			"a binary that is nothing": "\x00\x01\x02\x03",
		} {
			c := n.dial(t)
			go func() { _, _ = io.WriteString(c, says) }()
			b := n.backends["rest"].next(t)
			expect(t, b, says)
			depart(t, c, leavesByRST)
			expectReset(t, b)
			if e := receive(t, n.ended, name); e.Result.AToB.Bytes != int64(len(says)) || e.Result.AToB.Reason != splice.ResetBySource {
				t.Errorf("%s: %v", name, e.Result)
			}
			n.expectNothingLeft(t, name)
		}
	})
}

// tinyRecords spreads a hello over more records than are looked at.
func tinyRecords(hello string) string {
	var b strings.Builder
	for _, c := range []byte(hello[5:]) {
		b.WriteString("\x16\x03\x01\x00\x01")
		b.WriteByte(c)
	}
	return b.String()
}

// Whoever leaves the queue, or waits there for too long, holds nobody's place; the
// queue's length comes back to zero with each.
func TestHostileInQueue(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		const timeout = 300 * time.Millisecond
		r := startRelay(t, w, oneUpstream(proxy.Upstream{
			Servers: proxy.Targets(b.addr.String()), MaxConnections: 1, Queue: proxy.Queue{Limit: 3, Timeout: proxy.Duration(timeout)},
		}), proxy.Hooks{})
		queued := func(n int) {
			t.Helper()
			if got := settled(func() int { return r.Upstreams()[0].Queued }, n); got != n {
				t.Fatalf("%d wait, want %d", got, n)
			}
		}
		first := r.dial(t)
		server := b.next(t)
		for _, tt := range []struct {
			says, how string
			want      proxy.FailReason
		}{
			{"", leavesByRST, proxy.ClientLeft},
			{"last words", leavesByRST, proxy.ClientLeft},
			{"", staysMute, proxy.QueueTimeout},
			{"last words", staysMute, proxy.QueueTimeout},
			{"last words", halfCloses, proxy.QueueTimeout}, // it may be answered still
			{"", halfCloses, proxy.QueueTimeout},           // a FIN alone has another second
		} {
			c := r.dial(t)
			send(t, c, tt.says)
			queued(1)
			depart(t, c, tt.how)
			f := receive(t, r.failed, tt.how)
			if f.Reason != tt.want && (tt.how != leavesByRST || f.Reason != proxy.QueueTimeout) {
				t.Errorf("%q and %s: %s, %v; want %s", tt.says, tt.how, f.Reason, f.Err, tt.want)
			}
			queued(0)
		}
		for range 3 {
			r.dial(t)
		}
		queued(3)
		r.dialRefused(t, "")
		if f := receive(t, r.failed, "the fourth"); f.Reason != proxy.QueueFull {
			t.Errorf("the fourth: %s, %v", f.Reason, f.Err)
		}
		for range 3 {
			if f := receive(t, r.failed, "those in the queue"); f.Reason != proxy.QueueTimeout {
				t.Errorf("%s, %v", f.Reason, f.Err)
			}
		}
		_, _ = first.Close(), server.Close()
		receive(t, r.ended, "the first")
		r.expectNothingLeft(t, "in the end")
	})
}

// A client that goes while one server after the other is tried takes all that was made for
// it along, and none of the servers is said to have failed for it.
func TestHostileWhileConnecting(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		for _, silentFrom := range []int{0, 1, 2} {
			testnet.Leaks(t)
			su := setup{connectTimeout: time.Hour}
			for i := range 3 {
				if i < silentFrom {
					su.targets = append(su.targets, dead(t))
				} else {
					su.targets = append(su.targets, proxy.Addr{Network: "tcp", Address: testnet.NewSilent(t).Addr})
				}
			}
			r := newRelay(t, w, loopback(t, "tcp4"), su)
			for _, how := range []string{leavesByRST, halfCloses} {
				c := r.dial(t)
				settled(func() int { return r.Upstreams()[0].Servers[silentFrom].Active }, 1)
				depart(t, c, how)
				if f := receive(t, r.failed, how); f.Reason != proxy.ClientLeft {
					t.Errorf("%d refuse, %s: %s, %v", silentFrom, how, f.Reason, f.Err)
				}
				r.expectNothingLeft(t, how)
			}
			for i, s := range r.Upstreams()[0].Servers {
				refused := uint64(0)
				if i < silentFrom {
					refused = 2
				}
				if s.ConnectFailures[proxy.ConnectRefused] != refused || s.ConnectFailed != refused {
					t.Errorf("%d refuse: server %d has failed for %v, in all %d", silentFrom, i, s.ConnectFailures, s.ConnectFailed)
				}
			}
			_ = r.Close()
		}
	})
}

// A server gets no more connections than it may have, also of clients for whom it was not
// the first to be tried.
func TestFullServerIsNotAnothersLastResort(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		slow, b := testnet.NewSilent(t), newBackend(t, loopback(t, "tcp4"))
		r := startRelay(t, w, oneUpstream(proxy.Upstream{
			Servers: []proxy.Target{{Address: slow.Addr}, {Address: b.addr.String(), MaxConnections: 2}}, Balance: proxy.First,
			ConnectTimeout: proxy.Duration(500 * time.Millisecond), Ejection: proxy.Ejection{Off: true},
		}), proxy.Hooks{})
		const clients = 8
		for range clients {
			r.dial(t) // each finds the second server free, and comes to it later
		}
		for range 2 {
			b.next(t)
		}
		for range clients - 2 {
			f := receive(t, r.failed, "a failure")
			if f.Reason != proxy.ConnectTimeout {
				t.Errorf("%s, %v", f.Reason, f.Err)
			}
		}
		s := r.Upstreams()[0].Servers
		if s[1].Active != 2 || s[1].Connected != 2 || s[1].ConnectFailed != 0 || s[0].ConnectFailed != clients {
			t.Errorf("%+v\n%+v", s[0], s[1])
		}
	})
}

// Both ends of a connection that a program redirects go at once, with bytes on the way to
// each: what waits to be sent to one that is gone keeps nobody, and is no defect of ours.
func TestHostileRedirected(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	bytes := make([]byte, 128<<10)
	resets := func(c net.Conn) {
		_, _ = c.Write(bytes[:60<<10])
		_ = c.(*net.TCPConn).SetLinger(0)
	}
	leaves := func(c net.Conn) { _, _ = c.Write(bytes[:60<<10]) } // with bytes unread: that is a reset, too
	floods := func(c net.Conn) {
		for range 8 {
			if _, err := c.Write(bytes); err != nil {
				return
			}
		}
	}
	for name, ends := range map[string][2]func(net.Conn){
		"both reset":                       {resets, resets},
		"both leave":                       {leaves, leaves},
		"one resets, the other one leaves": {resets, leaves},
		"one floods, the other one leaves": {floods, leaves},
	} {
		t.Run(name, func(t *testing.T) {
			testnet.Leaks(t)
			b := newBackend(t, loopback(t, "tcp4"))
			c := setup{targets: []proxy.Addr{b.addr}, engine: splice.EngineSockmap}
			r := newRelay(t, loops, loopback(t, "tcp4"), c)
			meet := func(c net.Conn, does func(net.Conn)) {
				_ = c.SetDeadline(time.Now().Add(patience))
				does(c)
				_ = c.Close()
			}
			const each, rounds = 8, 12
			var all sync.WaitGroup
			for range each {
				all.Go(func() {
					for range rounds {
						select {
						case c := <-b.conns:
							meet(c, ends[1])
						case <-time.After(patience):
							t.Error("the server was not dialled")
							return
						}
					}
				})
				all.Go(func() {
					for range rounds {
						c, err := net.DialTimeout(r.addr.Network, r.addr.Address, patience)
						if err != nil {
							t.Error(err)
							return
						}
						meet(c, ends[0])
					}
				})
			}
			all.Wait()
			for range each * rounds {
				e := receive(t, r.ended, "an end")
				if e.Result.AToB.Reason == splice.Failed || e.Result.BToA.Reason == splice.Failed {
					t.Errorf("%v: %v", e.Result, e.Result.Err())
				}
			}
			r.expectNothingLeft(t, "in the end")
		})
	}
}
