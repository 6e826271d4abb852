package proxy_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// What an operator has said of a server outlasts reloads that leave the server
// alone; a weight ends with the one that it took the place of.
func TestSteeringOutlastsReload(t *testing.T) {
	testnet.Leaks(t)
	servers, u := trio(t)
	c := oneUpstream(u)
	r := startRelay(t, loops, c, proxy.Hooks{})
	a, b := servers[0].addr, servers[1].addr
	if err := r.SetDraining("u", a, true); err != nil {
		t.Fatal(err)
	}
	if err := r.SetDraining("u", a, true); err != nil { // again is no change
		t.Fatal(err)
	}
	if err := r.SetWeight("u", b, 9); err != nil {
		t.Fatal(err)
	}
	status := func(addr string) proxy.ServerStatus {
		t.Helper()
		list := r.Upstreams()[0].Servers
		i := slices.IndexFunc(list, func(s proxy.ServerStatus) bool { return s.Name == addr })
		if i < 0 {
			t.Fatalf("no server %s in %+v", addr, list)
		}
		return list[i]
	}
	expectBoth := func(when string, draining bool, weight int) {
		t.Helper()
		if s := status(a); s.Draining != draining || draining != (s.State == proxy.ServerDraining) {
			t.Errorf("%s: %+v, want draining %v", when, s, draining)
		}
		if s := status(b); s.Weight != weight || s.Steered != (s.Weight != s.Configured) {
			t.Errorf("%s: %+v, want the weight %d", when, s, weight)
		}
	}
	reload := func(change func(*proxy.Upstream)) {
		t.Helper()
		u := u
		u.Servers = slices.Clone(u.Servers)
		change(&u)
		if err := r.Reload(t.Context(), oneUpstream(u)); err != nil {
			t.Fatal(err)
		}
	}
	expectBoth("at once", true, 9)
	if got := r.tally(t, 20); got["a"] != 0 || got["b"] == 0 {
		t.Errorf("clients went to %v, want none to a", got)
	}
	reload(func(*proxy.Upstream) {})
	expectBoth("after the same again", true, 9)
	reload(func(u *proxy.Upstream) { u.Servers[1].MaxConnections, u.Balance = 50, proxy.LeastConnections })
	expectBoth("after another change", true, 9)
	reload(func(u *proxy.Upstream) { u.Servers[1].Weight = 3 })
	expectBoth("after another weight", true, 3)
	reload(func(u *proxy.Upstream) { u.Servers = u.Servers[1:] })
	reload(func(*proxy.Upstream) {})
	expectBoth("after it was away", false, 1)
	var told []proxy.ChangeKind
	for range 3 {
		told = append(told, receive(t, r.changed, "a change").What)
	}
	if !slices.Equal(told, []proxy.ChangeKind{proxy.Draining, proxy.Reweighted, proxy.Reweighted}) {
		t.Errorf("told %q", told)
	}
}

func TestSelect(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		servers, u := trio(t)
		r := startRelay(t, w, oneUpstream(u), proxy.Hooks{})
		var clients []net.Conn
		for range 6 {
			_, c := r.ask(t)
			clients = append(clients, c)
		}
		all := proxy.Filter{}
		// The last answer may come before its connection counts as joined.
		settled(func() int { conns, _ := r.Select(all, 0, 10); return len(conns) }, 6)
		conns, more := r.Select(all, 0, 10)
		if len(conns) != 6 || more || !slices.IsSortedFunc(conns, func(a, b proxy.Conn) int { return int(a.ID) - int(b.ID) }) {
			t.Fatalf("%d connections, more %v: %+v", len(conns), more, conns)
		}
		// Page by page it is the same.
		var pages []uint64
		for after, more := uint64(0), true; more; {
			var page []proxy.Conn
			if page, more = r.Select(all, after, 4); len(page) == 0 {
				t.Fatal("an empty page")
			}
			for _, c := range page {
				pages = append(pages, c.ID)
			}
			after = page[len(page)-1].ID
		}
		if len(pages) != 6 || pages[5] != conns[5].ID {
			t.Errorf("pages %v", pages)
		}
		self := netip.MustParseAddrPort(clients[0].LocalAddr().String()).Addr()
		carries, _ := proxy.CarriedBy(conns[0].Stats)
		for _, tc := range []struct {
			name string
			f    proxy.Filter
			want int
		}{
			{"listener", proxy.Filter{Listener: "relay"}, 6},
			{"another listener", proxy.Filter{Listener: "x"}, 0},
			{"upstream", proxy.Filter{Upstream: "u"}, 6},
			{"server", proxy.Filter{Server: servers[0].addr}, 2},
			{"server of another upstream", proxy.Filter{Upstream: "x", Server: servers[0].addr}, 0},
			{"client", proxy.Filter{Client: netip.PrefixFrom(self, 32)}, 6},
			{"network", proxy.Filter{Client: netip.MustParsePrefix("127.0.0.0/8")}, 6},
			{"port", proxy.Filter{ClientPort: netip.MustParseAddrPort(clients[0].LocalAddr().String()).Port()}, 1},
			{"another network", proxy.Filter{Client: netip.MustParsePrefix("10.0.0.0/8")}, 0},
			{"unix", proxy.Filter{Unix: true}, 0},
			{"engine", proxy.Filter{Engine: carries}, 6},
			{"another engine", proxy.Filter{Engine: splice.EngineWire}, 0},
		} {
			if got, _ := r.Select(tc.f, 0, 10); len(got) != tc.want {
				t.Errorf("%s: %d connections, want %d", tc.name, len(got), tc.want)
			}
		}
		id := conns[2].ID
		if c, ok := r.Connection(id); !ok || c.Client != conns[2].Client {
			t.Errorf("number %d: %+v, %v", id, c, ok)
		}
		if !r.CloseConnection(id) {
			t.Error("it was not there to be closed")
		}
		if e := receive(t, r.ended, "its end"); e.ID != id || e.Cut != proxy.CutAsked {
			t.Errorf("ended %+v", e)
		}
		if _, ok := r.Connection(id); ok || r.CloseConnection(id) {
			t.Error("it is still there")
		}
	})
}

// The busiest are those of the time since the last call, not those of all times.
func TestMeter(t *testing.T) {
	testnet.Leaks(t)
	b := newBackend(t, loopback(t, "tcp4"))
	r := newRelay(t, loops, loopback(t, "tcp4"), setup{targets: []proxy.Addr{b.addr}})
	talk := func() (client, server net.Conn) {
		client = r.dial(t)
		return client, b.next(t)
	}
	pass := func(from, to net.Conn, n int) {
		t.Helper()
		text := string(make([]byte, n))
		send(t, from, text)
		expect(t, to, text)
	}
	var m proxy.Meter
	busiest := func(n int) []proxy.Rated { return m.Busiest(r.Survey(), n) }
	if got := busiest(5); len(got) != 0 {
		t.Errorf("%d of none", len(got))
	}
	client1, server1 := talk()
	pass(client1, server1, 5000)
	client2, server2 := talk()
	pass(server2, client2, 10)
	settled(func() int { st := r.Stats(); return int(st.BytesToTarget + st.BytesToClient) }, 5010)
	first := busiest(5)
	if len(first) != 2 || first[0].Client != client1.LocalAddr().String() || first[0].ToTarget <= 0 || first[0].ToClient != 0 {
		t.Fatalf("first %+v", first)
	}
	pass(server2, client2, 100)
	settled(func() int { return int(r.Stats().BytesToClient) }, 110)
	second := busiest(1)
	if len(second) != 1 || second[0].Client != client2.LocalAddr().String() || second[0].ToClient <= 0 || second[0].ToTarget != 0 {
		t.Errorf("second %+v", second)
	}
	for _, c := range busiest(5) {
		if c.ToClient != 0 || c.ToTarget != 0 {
			t.Errorf("nothing has moved: %+v", c)
		}
	}
}
