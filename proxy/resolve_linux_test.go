package proxy_test

import (
	"fmt"
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

// A nameServer answers over UDP with what it was told to.
type nameServer struct {
	addr string

	mu    sync.Mutex
	zone  map[string][]dnsmessage.Resource
	asked map[string]int
	mute  bool
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{addr: pc.LocalAddr().String(), zone: make(map[string][]dnsmessage.Resource), asked: make(map[string]int)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			size, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if answer := n.answer(b[:size]); answer != nil {
				_, _ = pc.WriteTo(answer, from)
			}
		}
	}()
	t.Cleanup(func() { _ = pc.Close(); <-done })
	return n
}

func (n *nameServer) answer(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	q := m.Questions[0]
	n.asked[q.Name.String()]++
	if n.mute {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	m.RCode = dnsmessage.RCodeNameError
	for _, r := range n.zone[q.Name.String()] {
		m.RCode = dnsmessage.RCodeSuccess
		if r.Header.Type == q.Type {
			m.Answers = append(m.Answers, r)
		}
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
			h.Type = dnsmessage.TypeA
			list = append(list, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: netip.MustParseAddr(r).As4()}})
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
	one := newNamed(t, "127.0.0.2:0", "a")
	_, port, err := net.SplitHostPort(one.addr)
	if err != nil {
		t.Fatal(err)
	}
	newNamed(t, "127.0.0.3:"+port, "b")
	dns.set(t, "db.test.", 1, "127.0.0.3", "127.0.0.2")
	name := "db.test:" + port
	u := proxy.Upstream{
		Servers: proxy.Targets(name),
		// Longer than the test: it is the TTL that asks again.
		Resolve: proxy.Resolve{Servers: []string{dns.addr}, Interval: proxy.Duration(time.Hour), Timeout: proxy.Duration(time.Second)},
	}
	r := startRelay(t, func(ln net.Listener) net.Listener { return ln }, oneUpstream(u), proxy.Hooks{})
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
	r := startRelay(t, func(ln net.Listener) net.Listener { return ln }, oneUpstream(u), proxy.Hooks{})
	if got := r.tally(t, 40); got["a"] != 30 || got["b"] != 10 {
		t.Errorf("got %v, want the weights", got)
	}
	if st := r.Upstreams()[0].Servers; len(st) != 3 || !st[2].Backup {
		t.Errorf("servers %+v", st)
	}
}
