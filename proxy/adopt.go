package proxy

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// Adopted is what connections that an earlier process has left, and of which nobody knows
// where they came from, have as the names of their listener, route and upstream: their notes
// are missing, or too long.
const Adopted = "adopted"

// foundlings are those.
type foundlings struct {
	listener *listener
	route    *route
	members  map[netip.AddrPort]*member
}

// adopt takes over what an earlier process of the instance has left. One that hands over to
// this one has it yet: then all is prepared for the moment when that lets go of it.
func (s *Server) adopt() error {
	if s.Wire.Instance == "" {
		return nil
	}
	if s.Inheritance.hasInstance(&s.Wire) {
		table, err := splice.PrepareWire(s.Wire)
		s.Inheritance.table = table
		return err
	}
	_, err := s.adoptFlows(adoption{places: s.first})
	return err
}

// An adoption is of the flows of an instance that are not this server's.
type adoption struct {
	lives  bool          // the process that has had the instance does
	except []splice.Flow // that are that one's yet
	// rest says that nothing is to be done if the server has let go of the instance: what is
	// left is the next one's.
	rest bool
	// known returns the connection that a flow is, not counted yet, and what is known of
	// its session; nil: nobody knows it.
	known func(splice.Flow) (*conn, *splice.Past)
	// places are for those of which only a note tells; nil: new ones.
	places *places
}

// adoptFlows takes the instance, and makes connections of its flows.
func (s *Server) adoptFlows(a adoption) (n int, err error) {
	s.instance.Lock()
	defer s.instance.Unlock()
	s.mu.Lock()
	letGo := s.letGo
	s.mu.Unlock()
	if a.rest && letGo {
		return 0, nil
	}
	type adopted struct {
		conn    *conn
		session *splice.Session
	}
	var all []adopted
	n, err = splice.AdoptWire(s.Wire, splice.Adoption{Lives: a.lives, Except: a.except, Accepted: func(session *splice.Session, f splice.Flow) (splice.Handler, *splice.Past) {
		var c *conn
		var past *splice.Past
		if a.known != nil {
			c, past = a.known(f)
		}
		if c == nil {
			c = s.found(&a, session, f)
		}
		if !c.flown { // else it was this server's
			c.before = adoptedWith(session.Stats(), past)
		}
		c.flown = false
		c.member.active.Add(1)
		s.mu.Lock()
		if c.id == 0 {
			c.id = s.lastID + 1
		}
		s.comes(c)
		s.adopted++
		s.live.push(c)
		s.departs(c, c.member.dial.Network == original, f.BLocal)
		s.mu.Unlock()
		all = append(all, adopted{c, session})
		return c, past
	}})
	var sessions []*splice.Session
	s.mu.Lock()
	for _, a := range all {
		a.conn.session = a.session
		sessions = append(sessions, a.session)
	}
	if err == nil {
		s.holds, s.letGo, s.others = true, false, a.except
	}
	aborting, left := s.aborting, s.left
	s.change()
	s.mu.Unlock()
	switch { // since then
	case left:
		leaveAll(sessions)
	case aborting:
		abortAll(sessions)
	}
	return n, err
}

// adoptedWith is what another process has counted of a session that is adopted now. past knows
// what of it was moved by splice(2).
func adoptedWith(st splice.Stats, past *splice.Past) *totals {
	t := new(totals)
	t.add(st)
	if past != nil {
		t.splicedToTarget, t.splicedToClient = min(past.AToB.Spliced, t.bytesToTarget), min(past.BToA.Spliced, t.bytesToClient)
	}
	return t
}

// found makes the connection of a flow of which its note tells, or nobody knows.
func (s *Server) found(a *adoption, session *splice.Session, f splice.Flow) *conn {
	began := session.Stats().Started
	if n, ok := ReadNote(session.Note(), f); ok {
		if a.places == nil {
			a.places = newPlaces(s)
		}
		c, _ := a.places.place(n.record(f))
		c.began = began
		return c
	}
	all := &s.foundlings
	if all.listener == nil {
		u := newUpstream(s, Adopted)
		all.listener, all.route, all.members = &listener{server: s, name: Adopted}, &route{name: Adopted, upstream: u}, make(map[netip.AddrPort]*member)
	}
	m := all.members[f.B]
	if m == nil {
		m = newMember(all.route.upstream, f.B.String(), Addr{Network: "tcp", Address: f.B.String()}, 0)
		all.members[f.B] = m
	}
	return &conn{listener: all.listener, route: all.route, member: m, client: f.A, target: f.B, began: began}
}

// comes counts a connection that another process had. s.mu is held.
func (s *Server) comes(c *conn) {
	s.lastID = max(s.lastID, c.id)
	s.open++
	c.listener.open++
	if c.counted {
		c.listener.count(c)
	}
}

// leaveInstance lets another process have the instance, and returns the flows that are this one's
// yet, or its predecessor's.
func (s *Server) leaveInstance() []splice.Flow {
	s.instance.Lock()
	defer s.instance.Unlock()
	s.mu.Lock()
	holds, others := s.holds, s.others
	s.holds, s.letGo = false, true
	s.mu.Unlock()
	if !holds {
		return others
	}
	return append(splice.LeaveWire(s.Wire), others...)
}

const (
	// instancePatience is how long a process that has ended, or said that it has let go of
	// an instance, may be found to have it: the kernel closes its files one by one.
	instancePatience = 10 * time.Second
	instancePause    = 5 * time.Millisecond
)

// adoptSoon is adoptFlows once no other process has the instance.
func (s *Server) adoptSoon(ctx context.Context, a adoption) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, instancePatience)
	defer cancel()
	for {
		if n, err = s.adoptFlows(a); !errors.Is(err, splice.ErrInstanceInUse) {
			return n, err
		}
		select {
		case <-time.After(instancePause):
		case <-ctx.Done():
			return n, err
		}
	}
}

// Leave ends the server's part in the connections that are spliced under the name
// of an instance, or will be: they go on without it, and the next process of that name adopts
// them. All others stay as they are.
func (s *Server) Leave() {
	if s.Wire.Instance == "" {
		return
	}
	s.mu.Lock()
	s.left = true
	sessions := s.live.sessions(nil)
	s.mu.Unlock()
	leaveAll(sessions)
}

func leaveAll(sessions []*splice.Session) {
	for _, session := range sessions {
		session.Leave()
	}
}
