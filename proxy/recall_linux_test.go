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
