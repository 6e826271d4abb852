package proxy

import (
	"cmp"
	"slices"
	"time"
)

// A Meter finds the connections that carry most: see [Server.NewMeter]. It is not
// safe for concurrent use.
type Meter struct {
	server *Server
	at     time.Time // of the last measurement
	seen   map[uint64]Carried
}

// A Rated connection is one with what it has carried lately.
type Rated struct {
	Conn
	ToTarget, ToClient float64 // bytes a second
}

// NewMeter returns a meter of the connections of s. It keeps some tens of bytes
// for each that is joined.
func (s *Server) NewMeter() *Meter { return &Meter{server: s} }

// Busiest returns up to n of the joined connections, those first that have carried
// most since the last call; where there was none, or the connection is younger,
// since its start. Every joined connection is asked for its counts.
func (m *Meter) Busiest(n int) []Rated {
	type measured struct {
		joinedConn
		carried Carried // since the last call
		since   time.Time
	}
	found := m.server.joinedConns(func(*conn) bool { return true })
	now := time.Now()
	seen := make(map[uint64]Carried, len(found))
	list := make([]measured, len(found))
	for i, c := range found {
		st := c.session.Stats()
		sum := Carried{st.AToB.Bytes, st.BToA.Bytes}
		before, known := m.seen[c.id]
		since := m.at
		if !known {
			since = st.Started
		}
		seen[c.id] = sum
		list[i] = measured{c, Carried{sum.ToServer - before.ToServer, sum.ToClient - before.ToClient}, since}
	}
	m.seen, m.at = seen, now
	slices.SortStableFunc(list, func(a, b measured) int {
		return cmp.Compare(b.carried.ToServer+b.carried.ToClient, a.carried.ToServer+a.carried.ToClient)
	})
	list = list[:min(n, len(list))]
	busiest := make([]Rated, len(list))
	for i, c := range list {
		busiest[i].Conn = c.view(c.session.Stats())
		if took := now.Sub(c.since).Seconds(); took > 0 {
			busiest[i].ToTarget, busiest[i].ToClient = float64(c.carried.ToServer)/took, float64(c.carried.ToClient)/took
		}
	}
	return busiest
}
