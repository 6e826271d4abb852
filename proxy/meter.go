package proxy

import (
	"cmp"
	"slices"
	"time"
)

// A Meter finds the connections that carry most, of one survey after another. The
// zero value is ready. It keeps some tens of bytes for each connection, and is not
// safe for concurrent use.
type Meter struct {
	at   time.Time // of the last survey
	seen map[uint64]Carried
}

// A Rated connection is one with what it has carried lately.
type Rated struct {
	Conn
	ToTarget, ToClient float64 // bytes a second
}

// Busiest returns up to n of the joined connections, those first that have carried
// most since the last survey that m was given; where there was none, or the
// connection is younger, since its start.
func (m *Meter) Busiest(s *Survey, n int) []Rated {
	type measured struct {
		*surveyed
		lately Carried
		since  time.Time
	}
	seen := make(map[uint64]Carried, len(s.conns))
	list := make([]measured, len(s.conns))
	for i := range s.conns {
		c := &s.conns[i]
		before, known := m.seen[c.id]
		since := m.at
		if !known {
			since = c.started
		}
		seen[c.id] = c.carried
		list[i] = measured{c, Carried{c.carried.ToServer - before.ToServer, c.carried.ToClient - before.ToClient}, since}
	}
	m.seen, m.at = seen, s.At
	slices.SortStableFunc(list, func(a, b measured) int {
		return cmp.Compare(b.lately.ToServer+b.lately.ToClient, a.lately.ToServer+a.lately.ToClient)
	})
	list = list[:min(n, len(list))]
	busiest := make([]Rated, len(list))
	for i, c := range list {
		busiest[i].Conn = c.view(c.session.Stats())
		if took := s.At.Sub(c.since).Seconds(); took > 0 {
			busiest[i].ToTarget, busiest[i].ToClient = float64(c.lately.ToServer)/took, float64(c.lately.ToClient)/took
		}
	}
	return busiest
}
