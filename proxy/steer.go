package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spliced-io/spliced/internal/nearest"
)

// ErrUnknown says that there is no such upstream, server or connection.
var ErrUnknown = errors.New("not known")

// An UnknownError matches [ErrUnknown], and knows what there is.
type UnknownError struct {
	What  string // upstream, server
	Name  string
	Of    string   // the upstream of a server
	Known []string // names that there are
}

// Error ends with what would be right.
func (e *UnknownError) Error() string {
	of := ""
	if e.Of != "" {
		of = " of upstream " + e.Of
	}
	return fmt.Sprintf("%s %q%s: %v: %s", e.What, e.Name, of, ErrUnknown, nearest.Want(e.Name, e.Known))
}

// Unwrap is for [errors.Is].
func (e *UnknownError) Unwrap() error { return ErrUnknown }

// MaxWeight is the largest weight of a server.
const MaxWeight = maxWeight

// SetDraining keeps new connections from a server, or lets them come again, until
// the server's address leaves the configuration; those that it has go on. The
// error is an [UnknownError] or [ErrSucceeded].
func (s *Server) SetDraining(upstream, server string, on bool) error {
	return s.steer(upstream, server, func(m *member) {
		if m.draining == on {
			return
		}
		m.draining = on
		what := Undrained
		if on {
			what = Draining
		}
		m.upstream.changed(m, what, nil, "")
	})
}

// SetWeight gives a server another weight, 1 to [MaxWeight], until its configured
// weight changes or its address leaves the configuration; 0 gives it the configured
// one again. The error is an [UnknownError] or [ErrSucceeded], or says which weights there are.
func (s *Server) SetWeight(upstream, server string, weight int) error {
	if weight < 0 || weight > maxWeight {
		return fmt.Errorf("weight %d: want 1 to %d, or 0 for the configured one", weight, maxWeight)
	}
	return s.steer(upstream, server, func(m *member) {
		before := m.weight
		m.steered = weight
		m.weight = m.configured
		if weight > 0 {
			m.weight = weight
		}
		if m.weight != before {
			m.upstream.changed(m, Reweighted, nil, strconv.Itoa(m.weight))
		}
	})
}

// Steer calls f, which changes something else that an operator has said and that goes along with a hand-over:
// [Baggage.Last] has it, or f is not called and the error is [ErrSucceeded]. f must not block.
func (s *Server) Steer(f func()) error {
	s.steering.Lock()
	defer s.steering.Unlock()
	if s.succeeded.Load() {
		return ErrSucceeded
	}
	f()
	return nil
}

// steer has f change a server for which that name stands.
func (s *Server) steer(upstreamName, server string, f func(m *member)) error {
	s.steering.Lock()
	defer s.steering.Unlock()
	if s.succeeded.Load() {
		return ErrSucceeded
	}
	s.mu.Lock()
	u := s.upstreams[upstreamName]
	known := s.sortedUpstreams()
	s.mu.Unlock()
	if u == nil {
		names := make([]string, len(known))
		for i, o := range known {
			names[i] = o.name
		}
		return &UnknownError{What: "upstream", Name: upstreamName, Known: names}
	}
	u.mu.Lock()
	i := slices.IndexFunc(u.members, func(m *member) bool { return m.name == server })
	if i < 0 {
		names := make([]string, len(u.members))
		for i, m := range u.members {
			names[i] = m.name
		}
		u.mu.Unlock()
		return &UnknownError{What: "server", Name: server, Of: upstreamName, Known: names}
	}
	f(u.members[i])
	u.balancer.reset()
	u.mu.Unlock()
	u.wake()
	return nil
}
