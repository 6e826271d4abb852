package proxy

import (
	"time"

	"github.com/spliced-io/spliced/splice"
)

// A Survey is what a server does, as of one moment: [Server.Survey].
type Survey struct {
	At time.Time
	// Stats, Listeners and Upstreams are what the methods of [Server] return.
	Stats     Stats
	Listeners []ListenerStatus
	Upstreams []UpstreamStatus
	// Took is how long it took to ask.
	Took time.Duration

	conns []surveyed // the joined ones
}

// A surveyed connection has told its counts.
type surveyed struct {
	joinedConn
	before  *totals
	started time.Time
	carried Carried
}

// Stats returns the counts so far. The bytes of live connections are in them,
// and no count ever falls.
func (s *Server) Stats() Stats { return s.Survey().Stats }

// Listeners returns the listeners by name, with the bytes of live connections.
func (s *Server) Listeners() []ListenerStatus { return s.Survey().Listeners }

// Upstreams returns the upstreams by name, with the bytes of live connections.
func (s *Server) Upstreams() []UpstreamStatus { return s.Survey().Upstreams }

// Survey asks every joined connection for its counts, once: a microsecond each, some
// more where the engine wire carries it.
func (s *Server) Survey() *Survey {
	v := &Survey{At: time.Now()}
	s.mu.Lock()
	all := s.ended // and what is live, as of one moment
	v.Stats = Stats{Accepted: s.accepted, Failed: s.failed, Open: s.open, Joined: s.live.len, MaxOpen: s.limit(), Adopted: s.adopted}
	listeners, upstreams := s.sortedListeners(), s.sortedUpstreams()
	v.Listeners = make([]ListenerStatus, len(listeners))
	type sum struct {
		*ListenerStatus
		totals
	}
	ofListener := make(map[*listener]*sum, len(listeners))
	for i, l := range listeners {
		v.Listeners[i] = ListenerStatus{Name: l.name, Addrs: l.addrs(), Stats: Stats{
			Accepted: l.accepted, Failed: l.failed, Open: l.open, MaxOpen: l.maxConns,
		}, Account: l.account.copyOf()}
		ofListener[l] = &sum{&v.Listeners[i], l.ended}
	}
	ofMember := make(map[*member]*Carried)
	v.conns = make([]surveyed, 0, s.live.len)
	for c := s.live.first; c != nil; c = c.next {
		if l := ofListener[c.listener]; l != nil {
			l.ListenerStatus.Stats.Joined++
		}
		if c.session == nil {
			continue
		}
		v.conns = append(v.conns, surveyed{joinedConn: joinedConn{c, c.session}, before: c.before})
		if ofMember[c.member] == nil {
			carried := c.member.hasCarried()
			ofMember[c.member] = &carried
		}
	}
	s.mu.Unlock()
	// Outside the lock: a session that reports its end holds its own and wants
	// this one. One that ends meanwhile keeps its counts.
	flows := 0
	for i := range v.conns {
		c := &v.conns[i]
		st := c.session.Stats()
		c.started, c.carried = st.Started, Carried{st.AToB.Bytes, st.BToA.Bytes}
		all.count(st, c.before)
		if w := st.Wire; w != nil && w.Switched && !w.Returned {
			flows++
		}
		if l := ofListener[c.listener]; l != nil {
			l.totals.count(st, c.before)
			engine, _ := CarriedBy(st)
			l.ListenerStatus.Account.Joined[engine]++
		}
		m, carried := ofMember[c.member], counted(st, c.before)
		m.ToServer += carried.ToServer
		m.ToClient += carried.ToClient
	}
	all.into(&v.Stats)
	v.Stats.Wire.Flows = flows
	for _, l := range ofListener {
		l.into(&l.ListenerStatus.Stats)
		l.byEngine(l.Carried)
	}
	v.Upstreams = make([]UpstreamStatus, len(upstreams))
	for i, u := range upstreams {
		v.Upstreams[i] = u.status(ofMember)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, of := range ofListener {
		of.Carried[splice.EngineCopy] = l.copied.rise(of.Carried[splice.EngineCopy])
	}
	v.Took = time.Since(v.At)
	return v
}
