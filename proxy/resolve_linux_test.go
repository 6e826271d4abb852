package proxy_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
)

// A nameServer answers with what it was told to.
type nameServer struct {
	addr string

	mu      sync.Mutex
	zone    map[string][]dnsmessage.Resource
	asked   map[string]int
	mute    bool
	silent  dnsmessage.Type // questions for these are not answered
	broken  dnsmessage.Type // and for these with SERVFAIL
	long    bool            // its answers fit TCP only
	streams int             // questions over TCP
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	var ln net.Listener
	var pc net.PacketConn
	var err error
	for try := 0; pc == nil; try++ { // a port that is free for both
		if ln, err = net.Listen("tcp", "127.0.0.53:0"); err != nil {
			t.Fatal(err)
		}
		if pc, err = net.ListenPacket("udp", ln.Addr().String()); err != nil {
			_ = ln.Close()
			if try == 10 {
				t.Fatal(err)
			}
		}
	}
	n := &nameServer{addr: ln.Addr().String(), zone: make(map[string][]dnsmessage.Resource), asked: make(map[string]int)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			size, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if answer := n.answer(b[:size], false); answer != nil {
				_, _ = pc.WriteTo(answer, from)
			}
		}
	}()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	serveEach(t, ln, n.serveStream)
	return n
}

// serveStream answers over TCP, in pieces.
func (n *nameServer) serveStream(c net.Conn) {
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		answer := n.answer(question, true)
		answer = append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)
		for _, piece := range [][]byte{answer[:1], answer[1:20], answer[20:]} {
			_, _ = c.Write(piece)
		}
	}
}

func (n *nameServer) answer(question []byte, stream bool) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	q := m.Questions[0]
	n.asked[q.Name.String()]++
	if n.mute || q.Type == n.silent {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	if stream {
		n.streams++
	}
	m.RCode = dnsmessage.RCodeNameError
	if q.Type == n.broken {
		m.RCode = dnsmessage.RCodeServerFailure
		answer, _ := m.Pack()
		return answer
	}
	for _, r := range n.zone[q.Name.String()] {
		m.RCode = dnsmessage.RCodeSuccess
		if r.Header.Type == q.Type {
			m.Answers = append(m.Answers, r)
		}
	}
	if n.long && !stream {
		m.Answers, m.Truncated = nil, true
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

func (n *nameServer) set(t *testing.T, name string, ttl uint32, records ...any) {
	t.Helper()
	var list []dnsmessage.Resource
	for _, r := range records {
		h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl}
		switch r := r.(type) {
		case string:
			if addr := netip.MustParseAddr(r); addr.Is4() {
				h.Type = dnsmessage.TypeA
				list = append(list, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}})
			} else {
				h.Type = dnsmessage.TypeAAAA
				list = append(list, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
			}
		case dnsmessage.SRVResource:
			h.Type = dnsmessage.TypeSRV
			list = append(list, dnsmessage.Resource{Header: h, Body: &r})
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.zone[name] = list
}

// names returns those of the servers, in their order.
func (r *relay) names() string {
	var list []string
	for _, s := range r.Upstreams()[0].Servers {
		list = append(list, s.Name)
	}
	return strings.Join(list, " ")
}

func (r *relay) awaitNames(t *testing.T, want string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for r.names() != want {
		select {
		case <-r.changed:
		case <-time.After(time.Until(deadline)):
			t.Fatalf("servers %q, want %q", r.names(), want)
		}
	}
}

// The addresses of a name are servers; when its TTL is over it is asked for
// again, and what it was is used as long as nobody answers.
func TestNameChanges(t *testing.T) {
	testnet.Leaks(t)
	dns := newNameServer(t)
	port := samePort(t, "127.0.0.2", "a", "127.0.0.3", "b")
	dns.set(t, "db.test.", 1, "127.0.0.3", "127.0.0.2")
	name := "db.test:" + port
	u := proxy.Upstream{
		Servers: proxy.Targets(name),
		// Longer than the test: it is the TTL that asks again.
		Resolve: proxy.Resolve{Servers: []string{dns.addr}, Interval: proxy.Duration(time.Hour), Timeout: proxy.Duration(time.Second)},
	}
	r := startRelay(t, loops, oneUpstream(u), proxy.Hooks{})
	r.awaitNames(t, fmt.Sprintf("%s=127.0.0.2:%s %s=127.0.0.3:%s", name, port, name, port))
	if got := r.tally(t, 10); got["a"] != 5 || got["b"] != 5 {
		t.Errorf("got %v", got)
	}
	dns.set(t, "db.test.", 1, "127.0.0.3")
	r.awaitNames(t, fmt.Sprintf("%s=127.0.0.3:%s", name, port))
	if got := r.tally(t, 4); got["b"] != 4 {
		t.Errorf("got %v", got)
	}
	dns.mu.Lock()
	dns.mute = true
	dns.mu.Unlock()
	for {
		if c := receive(t, r.changed, "that nobody answers"); c.What == proxy.Unresolved {
			break
		}
	}
	if got := r.tally(t, 4); got["b"] != 4 {
		t.Errorf("got %v while nobody answers", got)
	}
}

// Weights of SRV records count, and lower priorities are backups.
func TestServiceRecords(t *testing.T) {
	testnet.Leaks(t)
	dns := newNameServer(t)
	var records []any
	for i, s := range []struct {
		name             string
		priority, weight uint16
	}{{"a", 10, 3}, {"b", 10, 1}, {"c", 20, 5}} {
		server := newNamed(t, fmt.Sprintf("127.0.0.%d:0", i+2), s.name)
		ap := netip.MustParseAddrPort(server.addr)
		host := s.name + ".test."
		dns.set(t, host, 60, ap.Addr().String())
		records = append(records, dnsmessage.SRVResource{Priority: s.priority, Weight: s.weight, Port: ap.Port(), Target: dnsmessage.MustNewName(host)})
	}
	dns.set(t, "_db._tcp.test.", 60, records...)
	u := proxy.Upstream{
		Servers: proxy.Targets("srv:_db._tcp.test"),
		Resolve: proxy.Resolve{Servers: []string{dns.addr}},
	}
	r := startRelay(t, loops, oneUpstream(u), proxy.Hooks{})
	if got := r.tally(t, 40); got["a"] != 30 || got["b"] != 10 {
		t.Errorf("got %v, want the weights", got)
	}
	if st := r.Upstreams()[0].Servers; len(st) != 3 || !st[2].Backup {
		t.Errorf("servers %+v", st)
	}
}

// One server under two names of SRV records is one server, with the share of both.
func TestServiceRecordsOfOneServer(t *testing.T) {
	testnet.Leaks(t)
	dns := newNameServer(t)
	var records []any
	for i, hosts := range [][]string{{"a.test.", "z.test."}, {"b.test."}} {
		server := newNamed(t, fmt.Sprintf("127.0.0.%d:0", i+2), hosts[0][:1])
		ap := netip.MustParseAddrPort(server.addr)
		for _, host := range hosts {
			dns.set(t, host, 60, ap.Addr().String())
			records = append(records, dnsmessage.SRVResource{Priority: 10, Weight: 1, Port: ap.Port(), Target: dnsmessage.MustNewName(host)})
		}
	}
	dns.set(t, "_db._tcp.test.", 60, records...)
	u := proxy.Upstream{
		Servers: proxy.Targets("srv:_db._tcp.test"),
		Resolve: proxy.Resolve{Servers: []string{dns.addr}},
	}
	r := startRelay(t, loops, oneUpstream(u), proxy.Hooks{})
	if got := r.tally(t, 30); got["a"] != 20 || got["b"] != 10 {
		t.Errorf("got %v, want the weights", got)
	}
	if st := r.Upstreams()[0].Servers; len(st) != 2 || st[0].Weight != 2 {
		t.Errorf("servers %+v", st)
	}
}

// SRV records are asked for again when the shortest TTL of what led to the servers is
// over: other weights, priorities and servers hold then, and servers that stay keep
// their connections.
func TestServiceRecordsChange(t *testing.T) {
	testnet.Leaks(t)
	dns := newNameServer(t)
	record := func(server *namedServer, host string, priority, weight uint16, ttl uint32) dnsmessage.SRVResource {
		ap := netip.MustParseAddrPort(server.addr)
		dns.set(t, host, ttl, ap.Addr().String())
		return dnsmessage.SRVResource{Priority: priority, Weight: weight, Port: ap.Port(), Target: dnsmessage.MustNewName(host)}
	}
	a, b, c := newNamed(t, "127.0.0.2:0", "a"), newNamed(t, "127.0.0.3:0", "b"), newNamed(t, "127.0.0.4:0", "c")
	// That of an address is the shortest.
	dns.set(t, "_db._tcp.test.", 3600, record(a, "a.test.", 10, 1, 1), record(b, "b.test.", 20, 1, 3600))
	u := proxy.Upstream{
		Servers: proxy.Targets("srv:_db._tcp.test"),
		Resolve: proxy.Resolve{Servers: []string{dns.addr}, Interval: proxy.Duration(time.Hour)},
	}
	r := startRelay(t, loops, oneUpstream(u), proxy.Hooks{})
	name, stays := r.ask(t)
	if name != "a" {
		t.Errorf("answered by %s", name)
	}
	dns.set(t, "_db._tcp.test.", 3600, record(a, "a.test.", 10, 1, 1), record(c, "c.test.", 10, 3, 1))
	prefix := "srv:_db._tcp.test="
	r.awaitNames(t, prefix+a.addr+" "+prefix+c.addr)
	if got := r.tally(t, 8); got["a"] != 2 || got["c"] != 6 {
		t.Errorf("got %v, want the weights", got)
	}
	if st := r.Upstreams()[0].Servers; st[0].Active != 1 || st[0].Backup || st[1].Backup || st[1].Weight != 3 {
		t.Errorf("servers %+v", st)
	}
	_ = stays.Close()
}

// What does not fit UDP is asked for over TCP, its TTL counts too, and IPv6 addresses
// are servers that come first.
func TestNameOverTCP(t *testing.T) {
	testnet.Leaks(t)
	loopback(t, "tcp6")
	port := samePort(t, "::1", "6", "127.0.0.2", "4")
	dns := newNameServer(t)
	dns.long = true
	dns.set(t, "db.test.", 1, "::1", "127.0.0.2")
	name := "db.test:" + port
	u := proxy.Upstream{
		Servers: proxy.Targets(name),
		Resolve: proxy.Resolve{Servers: []string{dns.addr}, Interval: proxy.Duration(time.Hour)},
	}
	r := startRelay(t, loops, oneUpstream(u), proxy.Hooks{})
	if names := r.names(); !strings.Contains(names, name+"=127.0.0.2:"+port) || !strings.Contains(names, name+"=[::1]:"+port) {
		t.Errorf("servers %q", names)
	}
	if got := r.tally(t, 10); got["6"] != 10 {
		t.Errorf("got %v", got)
	}
	dns.set(t, "db.test.", 3600, "::1")
	r.awaitNames(t, name+"=[::1]:"+port)
	dns.mu.Lock()
	defer dns.mu.Unlock()
	if dns.streams < 4 { // A and AAAA, twice
		t.Errorf("%d questions over TCP", dns.streams)
	}
}

// Answers that are no address of a server are none: connected to, the unspecified address is this machine.
func TestNoAddressOfAServer(t *testing.T) {
	testnet.Leaks(t)
	dns := newNameServer(t)
	port := samePort(t, "127.0.0.2", "a", "127.0.0.3", "b")
	name := "db.test:" + port
	dns.set(t, "db.test.", 1, "0.0.0.0", "127.0.0.2", "::", "255.255.255.255", "224.0.0.1", "ff02::1")
	u := proxy.Upstream{
		Servers: proxy.Targets(name),
		Resolve: proxy.Resolve{Servers: []string{dns.addr}, Interval: proxy.Duration(time.Hour), Timeout: proxy.Duration(time.Second)},
	}
	r := startRelay(t, loops, oneUpstream(u), proxy.Hooks{})
	good := fmt.Sprintf("%s=127.0.0.2:%s", name, port)
	r.awaitNames(t, good)
	dns.set(t, "db.test.", 1, "0.0.0.0", "::")
	for {
		c := receive(t, r.changed, "that it does not resolve")
		if c.What == proxy.Unresolved {
			if !strings.Contains(c.Err.Error(), "is no address of a server") {
				t.Errorf("%v", c.Err)
			}
			break
		}
	}
	if r.names() != good {
		t.Errorf("servers %q, want %q", r.names(), good)
	}
}

// A name server that answers for one family only says nothing about the other: what was found of that
// stays, and with nothing found before there is the one.
func TestNameOfOneFamilyOnly(t *testing.T) {
	for _, test := range []struct {
		name string
		how  func(n *nameServer, of dnsmessage.Type)
	}{
		{"silent", func(n *nameServer, of dnsmessage.Type) { n.silent = of }},
		{"broken", func(n *nameServer, of dnsmessage.Type) { n.broken = of }},
	} {
		t.Run(test.name, func(t *testing.T) {
			testnet.Leaks(t)
			dns := newNameServer(t)
			begin := func() *relay {
				return startRelay(t, loops, oneUpstream(proxy.Upstream{
					Servers: proxy.Targets("db.test:1"), OnRemoved: proxy.CloseSessions,
					Resolve: proxy.Resolve{Servers: []string{dns.addr}, Interval: proxy.Duration(time.Hour), Timeout: proxy.Duration(time.Second)},
				}), proxy.Hooks{})
			}
			const v4, v6 = "db.test:1=127.0.0.2:1", "db.test:1=[::1]:1"
			dns.set(t, "db.test.", 1, "127.0.0.2", "::1")
			r := begin()
			both := r.names()
			for end := time.Now().Add(patience); !strings.Contains(both, v4) || !strings.Contains(both, v6); both = r.names() {
				if time.Now().After(end) {
					t.Fatalf("servers %q", both)
				}
				time.Sleep(10 * time.Millisecond)
			}
			for _, of := range []dnsmessage.Type{dnsmessage.TypeAAAA, dnsmessage.TypeA} {
				dns.mu.Lock()
				test.how(dns, of)
				before := dns.asked["db.test."]
				dns.mu.Unlock()
				for asked := before; asked < before+6; time.Sleep(10 * time.Millisecond) {
					dns.mu.Lock()
					asked = dns.asked["db.test."]
					dns.mu.Unlock()
					if now := r.names(); now != both {
						t.Fatalf("no answer for %v: servers %q, were %q", of, now, both)
					}
				}
			}
			_ = r.Close()
			for of, want := range map[dnsmessage.Type]string{dnsmessage.TypeAAAA: v4, dnsmessage.TypeA: v6} {
				dns.mu.Lock()
				test.how(dns, of)
				dns.mu.Unlock()
				r := begin()
				r.awaitNames(t, want)
				_ = r.Close()
			}
			// One that says that there are none is believed.
			dns.mu.Lock()
			test.how(dns, 0)
			dns.mu.Unlock()
			r = begin()
			r.awaitNames(t, both)
			dns.set(t, "db.test.", 1, "127.0.0.2")
			r.awaitNames(t, v4)
		})
	}
}
