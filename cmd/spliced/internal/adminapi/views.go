package adminapi

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// engines are those that carry bytes.
var engines = []splice.Engine{splice.EngineCopy, splice.EngineSplice, splice.EngineSockmap, splice.EngineWire}

// The directions.
const (
	ToTarget = "to_target"
	ToClient = "to_client"
)

// ViewSession is a connection as the API shows it.
func ViewSession(c proxy.Conn) Session {
	engine, why := proxy.CarriedBy(c.Stats)
	s := Session{
		ID: c.ID, Listener: c.Listener, Route: c.Route, Upstream: c.Upstream, Server: c.Server,
		Client: c.Client, Target: c.Target, SNI: c.SNI,
		Engine: engine, EngineReason: why.String(),
		BytesToTarget: c.Stats.AToB.Bytes, BytesToClient: c.Stats.BToA.Bytes,
		SplicedToTarget: c.Stats.AToB.Spliced, SplicedToClient: c.Stats.BToA.Spliced,
		EndToTarget: c.Stats.AToB.Reason.String(), EndToClient: c.Stats.BToA.Reason.String(),
		Started: c.Started, LastProgress: c.Stats.LastProgress, Wire: viewWire(c.Stats.Wire),
	}
	if c.Local.IsValid() {
		s.Local = c.Local.String()
	}
	return s
}

func viewWire(w *splice.WireStats) *Wire {
	if w == nil || w.Attempts == 0 && !w.Switched && w.Refused == 0 {
		return nil // nothing to tell
	}
	v := &Wire{
		HandedOver: w.Switched, Returned: w.Returned, Attempts: w.Attempts,
		ClosedMS:      float64(w.Closed.Microseconds()) / 1e3,
		BytesToTarget: w.Delivered[0], BytesToClient: w.Delivered[1],
		PacketsToTarget: w.Packets[0], PacketsToClient: w.Packets[1],
		RetransmitsToTarget: w.Retransmits[0], RetransmitsToClient: w.Retransmits[1],
		ErrorsToTarget: w.Errors[0], ErrorsToClient: w.Errors[1],
		TooBigToTarget: w.TooBig[0], TooBigToClient: w.TooBig[1], Late: w.Late,
	}
	if !w.LastSeen.IsZero() {
		v.LastSeen = &w.LastSeen
	}
	if w.Refused != 0 {
		v.Refused = w.Refused.String()
	}
	return v
}

// ViewCounts are a server's or listener's.
func ViewCounts(s *proxy.Stats) Counts {
	return Counts{
		Accepted: s.Accepted, Failed: s.Failed, Ended: s.Ended, Open: s.Open, Joined: s.Joined, MaxOpen: s.MaxOpen,
		BytesToTarget: s.BytesToTarget, BytesToClient: s.BytesToClient,
		SplicedToTarget: s.SplicedToTarget, SplicedToClient: s.SplicedToClient,
	}
}

func (a *API) viewStatus(stats *proxy.Stats) Status {
	s := a.daemon.Status()
	s.Counts, s.Adopted = ViewCounts(stats), stats.Adopted
	return s
}

func (a *API) viewListeners(all []proxy.ListenerStatus) []Listener {
	v := make([]Listener, len(all))
	for i := range all {
		v[i] = viewListener(&all[i], a.daemon.Routes(all[i].Name))
	}
	return v
}

func viewListener(l *proxy.ListenerStatus, routes []Route) Listener {
	v := Listener{
		Name: l.Name, Addresses: make([]string, len(l.Addrs)), Routes: list(routes),
		Counts: ViewCounts(&l.Stats), Failures: counted(l.Failures),
		Ends: make([]EndCount, 0, len(l.Ends)), Refusals: make([]RefusalCount, 0, len(l.Refusals)),
	}
	for i, a := range l.Addrs {
		v.Addresses[i] = addrText(a)
	}
	for _, engine := range engines {
		c := l.Carried[engine]
		v.Engines = append(v.Engines, EngineUse{engine, l.Account.Joined[engine], c.ToServer, c.ToClient})
	}
	for _, k := range slices.SortedFunc(maps.Keys(l.Ends), func(a, b proxy.EndKey) int {
		return cmp.Or(cmp.Compare(direction(b), direction(a)), cmp.Compare(a.Reason, b.Reason))
	}) {
		v.Ends = append(v.Ends, EndCount{direction(k), k.Reason.String(), l.Ends[k]})
	}
	for _, k := range slices.SortedFunc(maps.Keys(l.Refusals), func(a, b proxy.EngineKey) int {
		return cmp.Or(cmp.Compare(a.Engine, b.Engine), cmp.Compare(a.Why, b.Why))
	}) {
		v.Refusals = append(v.Refusals, RefusalCount{k.Engine, k.Why.String(), l.Refusals[k]})
	}
	return v
}

func direction(k proxy.EndKey) string {
	if k.ToClient {
		return ToClient
	}
	return ToTarget
}

func addrText(a net.Addr) string {
	if a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return a.String()
}

func viewUpstreams(all []proxy.UpstreamStatus) []Upstream {
	v := make([]Upstream, len(all))
	for i := range all {
		v[i] = viewUpstream(&all[i])
	}
	return v
}

func viewUpstream(u *proxy.UpstreamStatus) Upstream {
	v := Upstream{
		Name: u.Name, Balance: string(u.Balance), Queued: u.Queued, MaxQueue: u.MaxQueue,
		Servers: make([]Server, len(u.Servers)),
	}
	for i := range u.Servers {
		v.Servers[i] = viewServer(&u.Servers[i])
	}
	for _, n := range u.Unresolved {
		v.Unresolved = append(v.Unresolved, Unresolved(n))
	}
	return v
}

func viewServer(s *proxy.ServerStatus) Server {
	return Server{
		Name: s.Name, Address: s.Address, State: string(s.State), Since: moment(s.Since), Error: s.Error,
		Draining: s.Draining, Down: s.Down, Ejected: s.Ejected, EjectedUntil: moment(s.EjectedUntil), Ejections: s.Ejections,
		Backup: s.Backup, Weight: s.Weight, ConfiguredWeight: s.Configured, Active: s.Active, MaxActive: s.MaxActive,
		Connected: s.Connected, ConnectFailed: s.ConnectFailed, ConnectFailures: counted(s.ConnectFailures),
		EarlyResets: s.EarlyResets, Checks: s.Checks, ChecksFailed: s.ChecksFailed,
		BytesToTarget: s.BytesToServer, BytesToClient: s.BytesToClient,
	}
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func counted(m map[proxy.FailReason]uint64) map[string]uint64 {
	v := make(map[string]uint64, len(m))
	for k, n := range m {
		v[string(k)] = n
	}
	return v
}

// list is never null in JSON.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
