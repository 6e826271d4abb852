package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/proxyproto"
	"github.com/spliced-io/spliced/splice"
)

// conn is what the server keeps of a connection: there may be a hundred
// thousand of them.
type conn struct {
	listener   *listener
	in         *list // that it is in
	prev, next *conn
	session    *splice.Session // nil while goroutines care for it
	route      *route
	member     *member // that it is joined to
	tries      []try   // by the event loops
	id         uint64
	began      time.Time
	connected  time.Duration        // from then on, until the server had answered
	cut        string               // why the server ended it
	sni        string               // the name of the TLS client hello
	first      []byte               // read before the session begins
	tls        *tls.ConnectionState // with the client, if it ends here
	behind     bool                 // a proxy: its PROXY header names the client
	header     *proxyproto.Header
	counted    bool    // among the connections of its client
	bare       bool    // it has no sockets: packets are spliced
	parting    bool    // it is being handed over to another process
	flown      bool    // it goes on without this one
	outward    bool    // local is in the server's map of that name
	before     *totals // what another process has counted of it, or this one before it left; nil: nothing. It does not change

	client, target, local netip.AddrPort // invalid for unix sockets; see destination for the target
}

func (c *conn) key() pickKey { return pickKey{source: c.client.Addr(), sni: c.sni} }

// A try is a server that a client may be connected to, for the event loops.
type try struct {
	*member
	beside  bool // another address of the one before it
	entered bool // it counts the client among its connections
}

// trying is called before any of the tries but the first is dialled, and says whether it has
// room. Those before it have failed, unless it is dialled beside them.
func (c *conn) trying(target int) bool {
	t := &c.tries[target]
	if !t.beside {
		c.leaveTries(0, target)
	}
	t.entered = t.entered || t.enter()
	return t.entered
}

// leaveTries counts the client out of those from first up to end.
func (c *conn) leaveTries(first, end int) {
	for i := first; i < end; i++ {
		if t := &c.tries[i]; t.entered {
			t.entered = false
			t.leave()
		}
	}
}

// settle notes which of the tries was connected to, and returns it; tried has why
// others were not.
func (c *conn) settle(target int, tried []error) *member {
	m := c.tries[target].member
	c.leaveTries(0, target)
	c.leaveTries(target+1, len(c.tries))
	c.blame(tried)
	m.connected()
	return m
}

// unsettle notes that none was.
func (c *conn) unsettle(tried []error) {
	c.blame(tried)
	c.leaveTries(0, len(c.tries))
}

// blame counts the failures of servers that are their own.
func (c *conn) blame(tried []error) {
	for i, err := range tried {
		if err != nil && !shortage(err) {
			c.tries[i].connectFailed(err)
		}
	}
}

// onEnd runs on the goroutine that moves the bytes of others: it only takes
// note.
func (c *conn) onEnd(r splice.Result) {
	s := c.listener.server
	s.mu.Lock()
	if w := r.Stats.Wire; c.parting && w != nil && w.Left {
		s.flown(c, r.Stats)
		s.mu.Unlock()
		c.member.leave()
		return
	}
	if c.parting && (r.AToB.Reason == splice.Stopped || r.BToA.Reason == splice.Stopped) {
		s.live.remove(c)
		p := parted{c, r}
		if s.parting {
			s.parted = append(s.parted, p)
			s.change()
		} else {
			go p.keep() // nobody takes it any more; Close waits for its outcome
		}
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	c.conclude(r)
}

// flown forgets a connection that goes on without this process, until another one adopts it.
// If it comes back, what it has had counts no more. s.mu is held.
func (s *Server) flown(c *conn, st splice.Stats) {
	c.flown = true
	s.live.remove(c)
	s.keepCounts(c, st)
	before := new(totals)
	before.add(st)
	c.before = before
	s.arrived(c)
	s.open--
	if c.bare {
		c.bare = false
		s.bare--
	}
	c.listener.release(c)
	s.change()
}

// keepCounts counts what a connection has carried that is about to be gone from here. s.mu is
// held, under which it leaves the live ones: no byte is counted twice, or not at all.
func (s *Server) keepCounts(c *conn, st splice.Stats) {
	s.ended.count(st, c.before)
	c.listener.ended.count(st, c.before)
	carried := counted(st, c.before)
	c.member.counts.bytesToServer.Add(carried.ToServer)
	c.member.counts.bytesToClient.Add(carried.ToClient)
}

// A parted connection is one whose session has ended to be handed over.
type parted struct {
	conn   *conn
	result splice.Result
}

// conclude notes that c has ended with r. Whoever is told of it finds its place at the server
// free.
func (c *conn) conclude(r splice.Result) {
	c.member.ended(r)
	s := c.listener.server
	s.mu.Lock()
	s.live.remove(c)
	s.arrived(c)
	s.ended.conns++
	c.listener.ended.conns++
	s.keepCounts(c, r.Stats)
	c.listener.account.ended(c, &r)
	s.tell(unsaid{conn: c, result: &r})
	s.mu.Unlock()
}

func (c *conn) clientName() string {
	if c.client.IsValid() {
		return c.client.String()
	}
	return "unix"
}

func (c *conn) upstreamName() string {
	if c.route == nil || c.route.upstream == nil {
		return ""
	}
	return c.route.upstream.name
}

func (c *conn) view(st splice.Stats) Conn {
	s := c.listener.server
	s.mu.Lock()
	cut := c.cut
	s.mu.Unlock()
	return Conn{
		ID: c.id, Listener: c.listener.name, Route: c.route.name, Upstream: c.upstreamName(), SNI: c.sni,
		Client: c.clientName(), Server: c.member.name, Target: c.dialled(), Local: c.local, Cut: cut, Started: st.Started, Connected: c.connected, Stats: st,
	}
}

// joined notes that c has its server. s.mu is held.
func (s *Server) joined(c *conn) {
	c.connected = max(1, time.Since(c.began))
	c.listener.account.joined(c)
	if s.Hooks.Joined != nil {
		s.tell(unsaid{joined: c})
	}
}

// list holds connections, the oldest first. The zero value is empty.
type list struct {
	first, last *conn
	len         int
}

func (l *list) push(c *conn) {
	c.in, c.prev = l, l.last
	if l.last != nil {
		l.last.next = c
	} else {
		l.first = c
	}
	l.last = c
	l.len++
}

// remove takes c out, if it is in.
func (l *list) remove(c *conn) {
	if c.in != l {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		l.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		l.last = c.prev
	}
	c.in, c.prev, c.next = nil, nil, nil
	l.len--
}

// sessions returns those of the connections that f is true for; nil is all.
func (l *list) sessions(f func(*conn) bool) []*splice.Session {
	var sessions []*splice.Session
	for c := l.first; c != nil; c = c.next {
		if c.session != nil && (f == nil || f(c)) {
			sessions = append(sessions, c.session)
		}
	}
	return sessions
}

// cutSessions resets the joined connections that f is true for.
func (s *Server) cutSessions(cut string, f func(*conn) bool) {
	s.mu.Lock()
	sessions := s.live.sessions(func(c *conn) bool {
		if !f(c) {
			return false
		}
		c.cut = cut
		return true
	})
	s.mu.Unlock()
	abortAll(sessions)
}

// Connections returns the joined connections, the oldest first, with what each
// has carried so far.
func (s *Server) Connections() []Conn {
	found := s.joinedConns(func(*conn) bool { return true })
	conns := make([]Conn, len(found))
	for i, c := range found {
		conns[i] = c.view(c.session.Stats())
	}
	return conns
}

// CloseConnection resets the joined connection of that number, and says whether
// there was one. It ends with the cut [CutAsked].
func (s *Server) CloseConnection(id uint64) bool {
	found := false
	s.cutSessions(CutAsked, func(c *conn) bool {
		found = found || c.id == id
		return c.id == id
	})
	return found
}

// ByLocal returns the joined connection whose target sees local as its client.
// It waits for one that is just being joined, until ctx ends.
func (s *Server) ByLocal(ctx context.Context, local netip.AddrPort) (Conn, bool) {
	s.mu.Lock()
	for {
		var found *conn
		for c := s.live.last; c != nil && found == nil; c = c.prev {
			if c.local == local {
				found = c
			}
		}
		if found == nil {
			s.mu.Unlock()
			return Conn{}, false
		}
		if session := found.session; session != nil {
			s.mu.Unlock()
			return found.view(session.Stats()), true
		}
		if s.wait(ctx.Done(), nil) != nil {
			s.mu.Unlock()
			return Conn{}, false
		}
	}
}

// abortAll ends sessions so that both peers learn that they were cut.
func abortAll(sessions []*splice.Session) {
	for _, session := range slices.Backward(sessions) {
		session.Abort()
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if ta, ok := a.(*net.TCPAddr); ok {
		ap := ta.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
