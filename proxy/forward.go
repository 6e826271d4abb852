package proxy

import (
	"errors"
	"net/netip"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// admit says whether there is room for another connection.
func (s *Server) admit(k *socket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.closed {
		return false
	}
	l := k.listener.Load()
	s.makeRoom(l)
	if s.room(l) {
		return true
	}
	if !k.full {
		k.full = true
		s.tell(unsaid{held: ErrConnLimit, addr: k.addr})
	}
	return false
}

// makeRoom has clients that say nothing leave earlier, of all if the server is about
// to be full, of the listener if only that is: else they would keep everybody out
// until their handshake timeout. s.mu is held, and let go while some leave.
func (s *Server) makeRoom(l *listener) {
	s.dismiss(nil, s.missing())
	s.dismiss(l, l.missing())
	if n := s.missing(); n > 0 {
		s.hurrying = true
		s.guests.Hurry(nil, n)
	}
	if n := l.missing(); n > 0 {
		l.hurrying = true
		s.guests.Hurry(l, n)
	}
}

// dismiss has those leave at once who may.
func (s *Server) dismiss(of any, n int) {
	if n == 0 {
		return
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	s.guests.Dismiss(of, min(n, atOnce))
}

func (s *Server) missing() int { return missing(s.open-s.leaving, s.limit()) }

func (l *listener) missing() int {
	if l.maxConns == 0 {
		return 0
	}
	return missing(l.open-l.leaving, l.maxConns)
}

// relax ends that once there is room without it. s.mu is held.
func (s *Server) relax(l *listener) {
	if s.hurrying && roomy(s.open-s.leaving, s.limit()) {
		s.hurrying = false
		s.guests.Hurry(nil, 0)
	}
	if l.hurrying && (l.maxConns == 0 || roomy(l.open-l.leaving, l.maxConns)) {
		l.hurrying = false
		s.guests.Hurry(l, 0)
	}
}

// accepted says what becomes of a connection. An event loop waits for it: where
// it takes time to find out, a goroutine does.
func (k *socket) accepted(session *splice.Session, client netip.AddrPort) splice.Way {
	l := k.listener.Load()
	p := l.policy.Load()
	c, err := l.server.take(l, p, client)
	if err != nil {
		return c.refuse(err)
	}
	if c.looks(p) {
		return splice.Way{Hold: func(client *splice.Held) { l.server.lookAt(c, client, p) }}
	}
	way, err := c.way(p, facts{source: client.Addr()}, nil)
	switch err {
	case nil:
		if err = c.begin(session); err != nil {
			c.leaveTries(0, 1)
			return c.refuse(err)
		}
		return way
	case errAsk:
		return splice.Way{Hold: func(client *splice.Held) { c.goOn(client, facts{source: c.client.Addr()}) }}
	case errSlow:
		return splice.Way{Hold: func(client *splice.Held) { c.serveSlowly(client, facts{source: c.client.Addr()}) }}
	default:
		return c.refuse(err)
	}
}

// errSlow says that a client's way is not one of the event loops: a goroutine has
// to go it.
var errSlow = errors.New("takes a goroutine")

// errAsk says that the client's connection has to be asked where it wanted to go.
var errAsk = errors.New("takes its descriptor")

// way finds the way of a client inside the event loops. held is its connection, or
// nil for errAsk where that is needed.
func (c *conn) way(p *policy, f facts, held *splice.Held) (splice.Way, error) {
	if p.tls != nil {
		return splice.Way{}, errSlow
	}
	r := p.match(f)
	if r == nil {
		return splice.Way{}, f.noRoute()
	}
	if c.route = r; r.upstream == nil {
		return splice.Way{}, errRejected
	}
	if r.crafted {
		return splice.Way{}, errSlow
	}
	if r.original && held == nil {
		return splice.Way{}, errAsk
	}
	if r.original {
		raw, err := held.SyscallConn()
		if err == nil {
			err = c.aim(raw)
		}
		if err != nil {
			return splice.Way{}, err
		}
	}
	members, err := r.upstream.pick(c.key())
	if err == errFull {
		err = errSlow // to wait in the queue
	}
	if err != nil {
		return splice.Way{}, err
	}
	targets, tries := make([]splice.Target, len(members)), make([]try, len(members))
	for i, m := range members {
		if targets[i], err = c.targetAt(m); err != nil {
			members[0].leave()
			return splice.Way{}, err
		}
		targets[i].Beside = i > 0 && m.rivals(members[i-1])
		tries[i] = try{member: m, beside: targets[i].Beside, entered: i == 0}
	}
	c.tries = tries
	w := splice.Way{Plan: r.plan, Lifetime: p.lifetime(), Targets: targets, Handler: c}
	if len(tries) > 1 {
		w.Trying = c.trying
	}
	if r.original {
		w.Dialing = c.dialing
	}
	return w, nil
}

// serveSlowly has a goroutine serve a client that was held.
func (c *conn) serveSlowly(held *splice.Held, f facts) {
	client, err := held.Conn()
	if err != nil {
		c.fail(err)
		return
	}
	go c.listener.server.serve(c, client, f, nil)
}

// take notes a new connection, and returns it also with an error, which says
// why it can't stay.
func (s *Server) take(l *listener, p *policy, client netip.AddrPort) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted++
	s.open++
	l.accepted++
	l.open++
	s.lastID++
	c := &conn{listener: l, id: s.lastID, client: client, began: time.Now()}
	if s.Hooks.Accepted != nil {
		s.tell(unsaid{came: &Accepted{ID: c.id, Client: c.clientName(), Listener: l.name}})
	}
	if s.aborting { // it was admitted just before
		return c, ErrServerClosed
	}
	if p.fromProxy(client.Addr()) {
		c.behind = true // who the client is comes later
	} else if err := l.enter(c, p); err != nil {
		return c, err
	}
	return c, nil
}

// begin has the event loops dial for c. The session of one that is held, or refused, is
// not to be known to anybody.
func (c *conn) begin(session *splice.Session) error {
	s := c.listener.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborting { // nobody would end its dial
		return ErrServerClosed
	}
	c.dials(session)
	return nil
}

// dials notes that the event loops dial for c. The server's lock is held.
func (c *conn) dials(session *splice.Session) {
	c.session = session
	c.listener.server.dialing.push(c)
}

// refuse has the client reset: by the zero Way, for which no session is begun. In
// a flood there are many.
func (c *conn) refuse(err error) splice.Way {
	c.fail(err)
	return splice.Way{}
}

// goOn has a client that was held go the way that the facts lead to: inside the
// event loops if it can.
func (c *conn) goOn(held *splice.Held, f facts) {
	p := c.listener.policy.Load()
	way, err := c.way(p, f, held)
	switch err {
	case nil:
		if way.Lifetime > 0 { // it counts from accepting
			way.Lifetime = max(1, way.Lifetime-time.Since(c.began))
		}
		if err := c.proceed(held, way); err != nil {
			c.leaveTries(0, 1)
			c.fail(err)
		}
	case errSlow:
		c.serveSlowly(held, f)
	default:
		held.Reset()
		c.fail(err)
	}
}

// proceed gives the connection back to the event loops, which go the way.
func (c *conn) proceed(held *splice.Held, way splice.Way) error {
	s := c.listener.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborting { // nobody would end its dial
		held.Reset()
		return ErrServerClosed
	}
	session, err := held.Go(way)
	if err != nil {
		return err
	}
	// Whatever becomes of it is told to c, which waits for the lock.
	c.dials(session)
	return nil
}

// dialing is called when the SYN to an original destination was sent.
func (c *conn) dialing(local netip.AddrPort) {
	s := c.listener.server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.departs(c, true, local)
}

// Connected is called when the session is joined.
func (c *conn) Connected(target int, local netip.AddrPort, tried []error) {
	s := c.listener.server
	m := c.settle(target, tried)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.member, c.tries = m, nil
	s.departs(c, m.dial.Network == original, local)
	s.dialing.remove(c)
	s.live.push(c)
	s.joined(c)
	s.change() // for those who look for this one
	if s.aborting {
		go c.session.Abort() // it waits for this loop; Close waits for its outcome
	}
}

// Failed is called when no server could be reached.
func (c *conn) Failed(err error, tried []error) {
	c.unsettle(tried)
	c.fail(err)
}

// fail reports a connection that was not joined, and is closed.
func (c *conn) fail(err error) {
	s := c.listener.server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialing.remove(c)
	s.arrived(c)
	s.failed++
	c.listener.failed++
	reason := failReason(err)
	count(&c.listener.account.failures, reason)
	s.tell(unsaid{conn: c, failed: &Failed{
		ID: c.id, Reason: reason, Client: c.clientName(), Listener: c.listener.name, Upstream: c.upstreamName(),
		Err: err, After: time.Since(c.began),
	}})
}

// Sockets is called when the session has let its sockets go, or is to have some again.
func (c *conn) Sockets(held bool) {
	s := c.listener.server
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !held && !c.bare:
		s.bare++
		s.change()
	case held && c.bare:
		s.bare--
	}
	c.bare = !held
}

// Ended is called when the joined session has ended.
func (c *conn) Ended(r splice.Result) { c.onEnd(r) }
