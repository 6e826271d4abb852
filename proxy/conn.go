package proxy

import (
	"context"
	"net"
	"net/netip"

	"github.com/spliced-io/spliced/splice"
)

// conn is what the server keeps of a joined connection: there may be a hundred
// thousand of them.
type conn struct {
	server     *Server
	prev, next *conn
	session    *splice.Session // nil until Start has returned
	addr       *Addr           // one of Targets
	id         uint64

	client, target, local netip.AddrPort // invalid for unix sockets
}

// onEnd runs on the goroutine that moves the bytes of others: it only takes
// note.
func (c *conn) onEnd(r splice.Result) {
	s := c.server
	s.mu.Lock()
	s.live.remove(c)
	s.ended.conns++
	s.ended.add(r.Stats)
	s.tell(unsaid{conn: c, result: r})
	s.mu.Unlock()
}

func (c *conn) view(st splice.Stats) Conn {
	v := Conn{ID: c.id, Client: "unix", Target: c.addr.String(), Local: c.local, Started: st.Started, Stats: st}
	if c.client.IsValid() {
		v.Client = c.client.String()
	}
	if c.target.IsValid() {
		v.Target = c.target.String()
	}
	return v
}

// list holds the live connections, the oldest first. The zero value is empty.
type list struct {
	first, last *conn
	len         int
}

func (l *list) push(c *conn) {
	c.prev = l.last
	if l.last != nil {
		l.last.next = c
	} else {
		l.first = c
	}
	l.last = c
	l.len++
}

func (l *list) remove(c *conn) {
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
	c.prev, c.next = nil, nil
	l.len--
}

func (l *list) sessions() []*splice.Session {
	sessions := make([]*splice.Session, 0, l.len)
	for c := l.first; c != nil; c = c.next {
		if c.session != nil {
			sessions = append(sessions, c.session)
		}
	}
	return sessions
}

// Connections returns the joined connections, the oldest first, with what each
// has carried so far.
func (s *Server) Connections() []Conn {
	type pair struct {
		c       *conn
		session *splice.Session
	}
	s.mu.Lock()
	pairs := make([]pair, 0, s.live.len)
	for c := s.live.first; c != nil; c = c.next {
		if c.session != nil {
			pairs = append(pairs, pair{c, c.session})
		}
	}
	s.mu.Unlock()
	conns := make([]Conn, len(pairs))
	for i, p := range pairs {
		conns[i] = p.c.view(p.session.Stats())
	}
	return conns
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
	for _, session := range sessions {
		abort(session)
	}
}

func abort(session *splice.Session) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing is worth waiting for
	if _, err := session.Stop(ctx); err != nil {
		return
	}
	a, b, err := session.Conns()
	if err != nil {
		return // it ended before, and closed both
	}
	reset(a)
	reset(b)
}

func addrPort(a net.Addr) netip.AddrPort {
	if ta, ok := a.(*net.TCPAddr); ok {
		ap := ta.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

func addrString(a net.Addr) string {
	if ap := addrPort(a); ap.IsValid() {
		return ap.String()
	}
	return "unix"
}
