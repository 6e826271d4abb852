package proxy

import (
	"slices"
	"strings"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// places finds the listeners and servers of connections that another process had, and makes those
// that this one does not have, or not yet.
type places struct {
	server    *Server
	listeners map[string]*listener
	upstreams map[string]*upstream
	members   map[[2]string]*member
	homeless  []*member // of upstreams that are here
}

func newPlaces(s *Server) *places {
	return &places{server: s, listeners: make(map[string]*listener), upstreams: make(map[string]*upstream), members: make(map[[2]string]*member)}
}

// newUpstream makes an upstream of the first configuration of s, or has the one whose connections were
// there before. p may be nil.
func (p *places) newUpstream(s *Server, name string) *upstream {
	if p != nil && p.upstreams[name] != nil {
		return p.upstreams[name]
	}
	return newUpstream(s, name)
}

// newListener does the same for a listener.
func (p *places) newListener(s *Server, name string) *listener {
	if p != nil && p.listeners[name] != nil {
		return p.listeners[name]
	}
	return &listener{server: s, name: name}
}

// place makes the connection of a record, which is not counted yet, and says how it is to be
// carried.
func (p *places) place(r *connRecord) (*conn, *splice.Plan) {
	s := p.server
	m := p.member(r)
	s.mu.Lock()
	l := s.listeners[r.Listener]
	s.mu.Unlock()
	if l == nil {
		l = p.newListener(s, r.Listener)
		p.listeners[r.Listener] = l
	}
	c := &conn{
		listener: l, route: &route{name: r.Route, upstream: m.upstream}, member: m, id: r.ID, began: time.Now().Add(-r.Age),
		sni: r.SNI, client: r.Client, target: r.Target, local: r.Local, counted: r.Counted,
	}
	return c, c.planNow()
}

// planNow is how the configuration wants such a connection carried; nil: it does
// not know its listener.
func (c *conn) planNow() *splice.Plan {
	p := c.listener.policy.Load()
	if p == nil {
		return nil
	}
	for i := range p.routes {
		if r := &p.routes[i]; r.name == c.route.name && r.upstream == c.route.upstream && r.plan != nil {
			c.route = r
			return r.plan
		}
	}
	return p.plan
}

// member is the server that a connection is joined to.
func (p *places) member(r *connRecord) *member {
	s := p.server
	s.mu.Lock()
	u := s.upstreams[r.Upstream]
	s.mu.Unlock()
	here := u != nil
	if here {
		if m := u.member(r); m != nil {
			return m
		}
	} else {
		u = p.newUpstream(s, r.Upstream)
		p.upstreams[r.Upstream] = u
	}
	key := [2]string{r.Upstream, r.Server}
	m := p.members[key]
	if m == nil {
		m = newMember(u, r.Server, Addr{Network: r.Dial[0], Address: r.Dial[1]}, 0)
		m.gone = true
		p.members[key] = m
		if here {
			p.homeless = append(p.homeless, m)
		} else {
			u.mu.Lock()
			u.strays = append(u.strays, m)
			u.mu.Unlock()
		}
	}
	return m
}

// newcomer makes the member of an address, or has the one of that name that connections of another
// process are with already. u.mu is held.
func (u *upstream) newcomer(name string, addr Addr) *member {
	n := slices.IndexFunc(u.strays, func(m *member) bool { return m.name == name && m.dial == addr })
	if n < 0 {
		return newMember(u, name, addr, 0)
	}
	m := u.strays[n]
	u.strays = slices.Delete(u.strays, n, n+1)
	m.gone = false
	return m
}

// newcomers are those of a name, as if it had been asked for. u.mu is held.
func (u *upstream) newcomers(name string) (members []*member) {
	u.strays = slices.DeleteFunc(u.strays, func(m *member) bool {
		of, _, ok := strings.Cut(m.name, "=")
		if !ok || of != name {
			return false
		}
		m.gone = false
		members = append(members, m)
		return true
	})
	return members
}

// member finds a server, or makes that of a name that has not been asked for yet,
// as if it had been.
func (u *upstream) member(r *connRecord) *member {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := slices.IndexFunc(u.members, func(m *member) bool { return m.name == r.Server }); n >= 0 {
		return u.members[n]
	}
	n := slices.IndexFunc(u.entries, func(e *entry) bool { return e.unasked && e.has(r.Server) })
	if n < 0 {
		return nil
	}
	m := newMember(u, r.Server, Addr{Network: r.Dial[0], Address: r.Dial[1]}, 0)
	u.entries[n].members = append(u.entries[n].members, m)
	u.refresh()
	u.recallKnown(m)
	return m
}

// retire treats servers that are not configured any more as a reload does.
func (p *places) retire() {
	s := p.server
	s.mu.Lock()
	upstreams := s.upstreams
	s.mu.Unlock()
	for name, u := range p.upstreams {
		if upstreams[name] != u {
			continue
		}
		u.mu.Lock()
		p.homeless = append(p.homeless, u.strays...)
		u.strays = nil
		u.mu.Unlock()
	}
	for _, m := range p.homeless {
		u := m.upstream
		u.mu.Lock()
		rule, drain := u.config.OnRemoved, u.config.DrainTime.within()
		u.mu.Unlock()
		m.endSessions(rule, drain, CutRemoved, func() bool { return true })
	}
}
