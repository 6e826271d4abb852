package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrUnknown says that there is no such upstream, server or connection.
var ErrUnknown = errors.New("not known")

// SetDraining keeps new connections from a server, or lets them come again, until
// the server's address leaves the configuration. The error matches [ErrUnknown]
// and names those that there are.
func (s *Server) SetDraining(upstream, server string, on bool) error {
	return s.steer(upstream, server, func(m *member) { m.draining = on })
}

// SetWeight gives a server another weight, 1 to 1000, until its address leaves the
// configuration; 0 gives it the configured one again. Errors are as those of
// SetDraining.
func (s *Server) SetWeight(upstream, server string, weight int) error {
	if weight < 0 || weight > maxWeight {
		return fmt.Errorf("weight %d: want 1 to %d, or 0 for the configured one", weight, maxWeight)
	}
	return s.steer(upstream, server, func(m *member) {
		m.steered = weight
		m.weight = m.configured
		if weight > 0 {
			m.weight = weight
		}
	})
}

// steer has f change a server for which that name stands.
func (s *Server) steer(upstreamName, server string, f func(m *member)) error {
	s.mu.Lock()
	u := s.upstreams[upstreamName]
	known := s.sortedUpstreams()
	s.mu.Unlock()
	if u == nil {
		names := make([]string, len(known))
		for i, o := range known {
			names[i] = o.name
		}
		return fmt.Errorf("upstream %q: %w: want %s", upstreamName, ErrUnknown, oneOf(names))
	}
	u.mu.Lock()
	i := slices.IndexFunc(u.members, func(m *member) bool { return m.name == server })
	if i < 0 {
		names := make([]string, len(u.members))
		for i, m := range u.members {
			names[i] = m.name
		}
		u.mu.Unlock()
		return fmt.Errorf("server %q of upstream %s: %w: want %s", server, upstreamName, ErrUnknown, oneOf(names))
	}
	f(u.members[i])
	u.balancer.reset()
	u.mu.Unlock()
	u.wake()
	return nil
}

func oneOf(names []string) string {
	switch len(names) {
	case 0:
		return "another, but there is none"
	case 1:
		return names[0]
	}
	return "one of " + strings.Join(names, ", ")
}
