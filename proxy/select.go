package proxy

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/spliced-io/spliced/splice"
)

// A Filter chooses connections: all its fields that are set must hold.
type Filter struct {
	Listener, Upstream, Server string        // names
	Client                     netip.Prefix  // has the client's address
	ClientPort                 uint16        // is the client's; 0 is any
	Unix                       bool          // the client came by a unix socket
	Engine                     splice.Engine // carries it now, as [CarriedBy] says; [splice.EngineAuto] is any
}

func (f *Filter) matches(c *conn) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	return is(f.Listener, c.listener.name) && is(f.Upstream, c.upstreamName()) && is(f.Server, c.member.name) &&
		(!f.Client.IsValid() || f.Client.Contains(c.client.Addr().WithZone(""))) && (f.ClientPort == 0 || f.ClientPort == c.client.Port()) &&
		(!f.Unix || !c.client.IsValid())
}

// Select returns up to limit of the joined connections that f chooses, in the order
// of their numbers, from the first that is above after on; more says that there
// are others behind them. It looks at every joined connection, and asks those that
// it returns for their counts; with an engine, all that are looked at.
func (s *Server) Select(f Filter, after uint64, limit int) (conns []Conn, more bool) {
	found := s.joinedConns(func(c *conn) bool { return c.id > after && f.matches(c) })
	slices.SortFunc(found, func(a, b joinedConn) int { return cmp.Compare(a.id, b.id) })
	for _, c := range found {
		st := c.session.Stats()
		if f.Engine != splice.EngineAuto {
			if engine, _ := CarriedBy(st); engine != f.Engine {
				continue
			}
		}
		if len(conns) == limit {
			return conns, true
		}
		conns = append(conns, c.view(st))
	}
	return conns, false
}

// Connection returns the joined connection of that number.
func (s *Server) Connection(id uint64) (Conn, bool) {
	found := s.joinedConns(func(c *conn) bool { return c.id == id })
	if len(found) == 0 {
		return Conn{}, false
	}
	return found[0].view(found[0].session.Stats()), true
}

// A joinedConn has a session, also when its connection gets another one.
type joinedConn struct {
	*conn
	session *splice.Session
}

// joinedConns returns those that match, the oldest first.
func (s *Server) joinedConns(match func(*conn) bool) []joinedConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []joinedConn
	for c := s.live.first; c != nil; c = c.next {
		if c.session != nil && match(c) {
			found = append(found, joinedConn{c, c.session})
		}
	}
	return found
}
