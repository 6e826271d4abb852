package proxy

import (
	"net"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// unsaid is something that a hook has not been told yet: the end of conn, its
// failure, why a listener is held, or what has become of a server. Event loops can't wait for a hook.
type unsaid struct {
	conn   *conn          // nil for held
	result *splice.Result // of an end
	failed *Failed
	came   *Accepted
	joined *conn
	held   error
	addr   net.Addr // of the listener that is held
	change *Change
}

// tell queues u for the hooks. s.mu is held.
func (s *Server) tell(u unsaid) {
	s.unsaid = append(s.unsaid, u)
	if u.conn != nil {
		s.leaving++
		u.conn.listener.leaving++
	}
	if !s.saying {
		s.saying = true
		go s.report()
	}
}

// gather is how long report waits for more to tell: at thousands of ends a
// second, waking it for each would cost more than telling.
const gather = 2 * time.Millisecond

// keepUnsaid is the longest array that is kept for the next things to tell.
const keepUnsaid = 1 << 10

// report tells the hooks, and is gone when there is nothing left to tell. A
// connection counts as open until its end was told: a slow hook holds back new
// connections at MaxConns instead of filling the memory.
func (s *Server) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.unsaid) > 0 {
		batch := s.unsaid
		s.unsaid, s.said = s.said, nil
		s.mu.Unlock()
		gone := 0
		for _, u := range batch {
			if u.conn != nil {
				gone++
			}
			s.say(u)
		}
		s.mu.Lock()
		s.open -= gone
		s.leaving -= gone
		for _, u := range batch {
			if u.conn != nil {
				u.conn.listener.leaving--
				if u.conn.bare {
					s.bare--
				}
				u.conn.listener.release(u.conn)
			}
		}
		if cap(batch) <= keepUnsaid {
			clear(batch)
			s.said = batch[:0]
		}
		s.change()
		if len(s.unsaid) == 0 && !s.closing {
			s.mu.Unlock()
			time.Sleep(gather)
			s.mu.Lock()
		}
	}
	s.saying = false
	s.change()
}

func (s *Server) say(u unsaid) {
	switch {
	case u.came != nil:
		s.Hooks.Accepted(*u.came)
	case u.joined != nil:
		s.mu.Lock()
		session := u.joined.session
		s.mu.Unlock()
		s.Hooks.Joined(u.joined.view(session.Stats()))
	case u.change != nil:
		if s.Hooks.Changed != nil {
			s.Hooks.Changed(*u.change)
		}
	case u.conn == nil:
		s.held(u.addr, u.held)
	case u.failed != nil:
		if s.Hooks.Failed != nil {
			s.Hooks.Failed(*u.failed)
		}
	case s.Hooks.Ended != nil:
		s.Hooks.Ended(Ended{Conn: u.conn.view(u.result.Stats), Result: *u.result})
	}
}
