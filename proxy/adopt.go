package proxy

import (
	"net/netip"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// Adopted is what connections that an earlier process has left have as the
// names of their listener, route and upstream.
const Adopted = "adopted"

// adopt takes over what an earlier process of the instance has left.
func (s *Server) adopt() error {
	if s.Wire.Instance == "" {
		return nil
	}
	l := &listener{server: s, name: Adopted}
	u := newUpstream(s, Adopted)
	members := make(map[netip.AddrPort]*member)
	_, err := splice.AdoptWire(s.Wire, func(session *splice.Session, client, target netip.AddrPort) splice.Handler {
		m := members[target]
		if m == nil {
			m = newMember(u, target.String(), Addr{Network: "tcp", Address: target.String()}, 0)
			members[target] = m
		}
		m.active.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lastID++
		s.open++
		l.open++
		s.adopted++
		c := &conn{
			listener: l, route: &route{name: Adopted, upstream: u}, member: m, session: session,
			id: s.lastID, client: client, target: target, began: time.Now(),
		}
		s.live.push(c)
		return c
	})
	return err
}

// Leave ends the server's part in the connections that are spliced under the name
// of an instance: they go on without it, and the next process of that name adopts
// them. All others stay as they are.
func (s *Server) Leave() {
	if s.Wire.Instance == "" {
		return
	}
	s.mu.Lock()
	sessions := s.live.sessions(nil)
	s.mu.Unlock()
	for _, session := range sessions {
		session.Leave()
	}
}
