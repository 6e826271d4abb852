package proxy

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy/internal/access"
)

// What clients have found of servers, and who has come too often, is known to the
// next process.
func TestRecall(t *testing.T) {
	testnet.Leaks(t)
	client := netip.MustParseAddr("192.0.2.1")
	start := func() *Server {
		c := reloadable("127.0.0.1:0", 0)
		c.Upstreams["u"] = Upstream{
			Servers:  Targets("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
			Ejection: Ejection{Failures: 2, Time: Duration(time.Hour), MaxTime: Duration(10 * time.Hour)},
		}
		s := &Server{Config: c}
		startServer(t, s)
		s.listeners["l"].policy.Load().rate = access.NewRate(0.001, 1)
		return s
	}
	a, b := start(), start()
	was := a.upstreams["u"].members
	refused := errors.New("refused")
	was[0].connectFailed(refused)
	was[0].connectFailed(refused)
	was[1].connectFailed(refused)
	if !a.listeners["l"].policy.Load().rate.Take(client) {
		t.Fatal("the first is one too many")
	}
	recall := func(s *Server, st serverState) {
		s.recallRates(st.Rates)
		s.recallServers(st.Members)
	}
	recall(b, a.state())
	is := b.Upstreams()[0].Servers
	if s := is[0]; s.State != ServerEjected || s.Ejections != 1 {
		t.Errorf("the first server is %+v, want it to be ejected", s)
	}
	if left := time.Until(b.upstreams["u"].members[0].readmitAt); left < 50*time.Minute || left > time.Hour {
		t.Errorf("it is out for %v, want what is left of an hour", left)
	}
	if b.listeners["l"].policy.Load().rate.Take(client) {
		t.Error("the client has a new burst")
	}
	// One more failure is the second in a row; but half of three may be out at most.
	m := b.upstreams["u"].members[1]
	if m.connFailed != 1 {
		t.Errorf("%d failures of the second server are known, want 1", m.connFailed)
	}
	// A third process that may not eject does not.
	c := start()
	conf := c.CurrentConfig()
	u := conf.Upstreams["u"]
	u.Ejection.Off = true
	conf.Upstreams["u"] = u
	if err := c.Reload(t.Context(), conf); err != nil {
		t.Fatal(err)
	}
	recall(c, a.state())
	if s := c.Upstreams()[0].Servers[0]; s.State == ServerEjected {
		t.Errorf("the first server is %+v although ejection is off", s)
	}
}

// A server that was up for the one process does not go down with the first check of the next one
// that is in vain, but with as many in a row as ever.
func TestRecallChecks(t *testing.T) {
	testnet.Leaks(t)
	late := errors.New("late")
	for _, test := range []struct {
		name           string
		fall           int
		before, early  int // checks in vain of the one; of the next, before it is told
		checked        bool
		after          int // that it takes then
		started, knows ServerState
	}{
		{"not checked yet", 3, 0, 0, false, 3, ServerUnchecked, ServerUp},
		{"not checked yet, two in vain before", 3, 2, 0, false, 1, ServerUnchecked, ServerUp},
		{"the first in vain", 3, 0, 1, true, 2, ServerDown, ServerUp},
		{"one in vain in each", 3, 1, 1, true, 1, ServerDown, ServerUp},
		{"the third in vain", 3, 2, 1, true, 0, ServerDown, ServerDown},
		{"one is enough", 1, 0, 1, true, 0, ServerDown, ServerDown},
		{"passed", 3, 2, 0, true, 3, ServerUp, ServerUp},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := func() (*Server, *member) {
				c := reloadable("127.0.0.1:0", 0)
				c.Upstreams["u"] = Upstream{Servers: Targets(testnet.Echo(t, "tcp", "127.0.0.1:0")), Health: &Health{Interval: Duration(time.Hour), Fall: test.fall}}
				s := &Server{Config: c}
				startServer(t, s)
				m := s.upstreams["u"].members[0]
				for deadline := time.Now().Add(30 * time.Second); s.Upstreams()[0].Servers[0].State != ServerUp; time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("it was never checked")
					}
				}
				return s, m // no more checks in this hour
			}
			a, was := start()
			for range test.before {
				was.checked1(t.Context(), late)
			}
			records := a.memberRecords()
			b, is := start()
			records[0].Server = is.name
			state := func() ServerState { return b.Upstreams()[0].Servers[0].State }
			b.upstreams["u"].mu.Lock()
			is.checked = test.checked && test.early == 0
			b.upstreams["u"].mu.Unlock()
			for range test.early {
				is.checked1(t.Context(), late)
			}
			if state() != test.started {
				t.Fatalf("the next process begins with %q, want %q", state(), test.started)
			}
			b.recallServers(records)
			if state() != test.knows {
				t.Errorf("it is %q, want %q", state(), test.knows)
			}
			n := 0
			for ; state() != ServerDown && n < 10; n++ {
				is.checked1(t.Context(), late)
			}
			if n != test.after {
				t.Errorf("it takes %d more checks in vain, want %d", n, test.after)
			}
		})
	}
}
