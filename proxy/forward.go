package proxy

import (
	"net"
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
	if s.room(k.listener.Load()) {
		return true
	}
	if !k.full {
		k.full = true
		s.tell(unsaid{held: ErrConnLimit, addr: k.addr})
	}
	return false
}

// accepted says what becomes of a connection. An event loop waits for it: where
// it takes time to find out, a goroutine does.
func (k *socket) accepted(session *splice.Session, client netip.AddrPort) splice.Way {
	l := k.listener.Load()
	p := l.policy.Load()
	c, err := l.server.take(l, p, session, client)
	if err != nil {
		return c.refuse(err)
	}
	if c.looks(p) {
		return c.hand(func(client net.Conn) { l.server.look(c, client, p) })
	}
	r := p.match(facts{source: client.Addr()})
	if r == nil {
		return c.refuse(errNoRoute)
	}
	c.route = r
	if r.upstream == nil {
		return c.refuse(errRejected)
	}
	if r.crafted {
		return c.hand(func(client net.Conn) { go l.server.serve(c, client, facts{source: c.client.Addr()}, nil) })
	}
	members, err := r.upstream.pick(c.key())
	if err != nil {
		if err == errFull {
			return c.hand(func(client net.Conn) { // to wait in the queue
				go l.server.serve(c, client, facts{source: c.client.Addr()}, nil)
			})
		}
		return c.refuse(err)
	}
	targets := make([]splice.Target, len(members))
	for i, m := range members {
		targets[i] = m.target
	}
	c.tries = members
	return splice.Way{Plan: r.plan, Lifetime: p.lifetime(), Targets: targets, Handler: c}
}

// take notes a new connection, and returns it also with an error, which says
// why it can't stay.
func (s *Server) take(l *listener, p *policy, session *splice.Session, client netip.AddrPort) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted++
	s.open++
	l.accepted++
	l.open++
	s.lastID++
	c := &conn{listener: l, session: session, id: s.lastID, client: client, began: time.Now()}
	if s.Hooks.Accepted != nil {
		s.tell(unsaid{came: &Accepted{ID: c.id, Client: c.clientName(), Listener: l.name}})
	}
	if s.aborting { // it was admitted just before: nobody would end its dial
		return c, ErrServerClosed
	}
	if p.fromProxy(client.Addr()) {
		c.behind = true // who the client is comes later
	} else if err := l.enter(c, p); err != nil {
		return c, err
	}
	if session != nil {
		s.dialing.push(c)
	}
	return c, nil
}

// refuse has the client reset: by the zero Way, for which no session is begun. In
// a flood there are many.
func (c *conn) refuse(err error) splice.Way {
	c.fail(err)
	return splice.Way{}
}

// hand takes the connection from the event loops, and has f go on with it.
func (c *conn) hand(f func(net.Conn)) splice.Way {
	s := c.listener.server
	s.mu.Lock()
	s.dialing.remove(c)
	c.session = nil
	s.mu.Unlock()
	return splice.Way{Hand: func(client net.Conn, err error) {
		if err != nil {
			c.fail(err)
			return
		}
		f(client)
	}}
}

// Connected is called when the session is joined.
func (c *conn) Connected(target int, local netip.AddrPort) {
	s := c.listener.server
	m := c.settle(target)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.member, c.tries, c.local = m, nil, local
	s.dialing.remove(c)
	s.live.push(c)
	s.joined(c)
	s.change() // for those who look for this one
	if s.aborting {
		go c.session.Abort() // it waits for this loop; Close waits for its outcome
	}
}

// Failed is called when no server could be reached.
func (c *conn) Failed(err error) {
	c.unsettle(err)
	c.fail(err)
}

// fail reports a connection that was not joined, and is closed.
func (c *conn) fail(err error) {
	s := c.listener.server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialing.remove(c)
	s.failed++
	c.listener.failed++
	reason := failReason(err)
	count(&c.listener.account.failures, reason)
	s.tell(unsaid{conn: c, failed: &Failed{
		ID: c.id, Reason: reason, Client: c.clientName(), Listener: c.listener.name, Upstream: c.upstreamName(),
		Err: err, After: time.Since(c.began),
	}})
}

// Ended is called when the joined session has ended.
func (c *conn) Ended(r splice.Result) { c.onEnd(r) }
