package proxy

import (
	"maps"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// An Account counts by reasons, for one listener. No count ever falls, and
// nothing is counted by the byte: what live connections have carried is asked of
// them.
type Account struct {
	Failures map[FailReason]uint64 // clients that were not joined
	Ends     map[EndKey]uint64     // directions that have ended
	Engines  map[EngineKey]uint64  // ended connections, by what has carried them last
	Refusals map[EngineKey]uint64  // ended connections, by the engine that they could not have
	Carried  map[splice.Engine]Carried
	Joined   map[splice.Engine]int // open connections, by what carries them now

	Connect  Histogram // from accepting a client to its server's answer
	Duration Histogram // from accepting to the end, of joined connections
}

// An EndKey is a direction and how it ended.
type EndKey struct {
	ToClient bool
	Reason   splice.Reason
}

// An EngineKey is an engine and why it is used, or not.
type EngineKey struct {
	Engine splice.Engine
	Why    splice.Why
}

// Carried are the bytes that an engine has delivered.
type Carried struct{ ToServer, ToClient int64 }

// A Histogram counts times by upper bounds.
type Histogram struct {
	Counts []uint64 // for each of the bounds those that are not above it and above the one before; one more for the rest
	Sum    time.Duration
}

// Observations is how many times were counted.
func (h *Histogram) Observations() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// ConnectBounds are those of [Account.Connect].
func ConnectBounds() []time.Duration {
	return []time.Duration{
		250 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond,
		500 * time.Millisecond, time.Second, 5 * time.Second, 15 * time.Second,
	}
}

// DurationBounds are those of [Account.Duration].
func DurationBounds() []time.Duration {
	return []time.Duration{
		10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute,
		10 * time.Minute, time.Hour, 24 * time.Hour,
	}
}

func (h *Histogram) observe(bounds []time.Duration, d time.Duration) {
	if h.Counts == nil {
		h.Counts = make([]uint64, len(bounds)+1)
	}
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.Counts[i]++
	h.Sum += d
}

// account is what a listener keeps for an [Account]. The server's lock is held.
type account struct {
	failures          map[FailReason]uint64
	ends              map[EndKey]uint64
	engines, refusals map[EngineKey]uint64
	connect, duration Histogram
}

func count[K comparable](m *map[K]uint64, key K) {
	if *m == nil {
		*m = make(map[K]uint64)
	}
	(*m)[key]++
}

var connectBounds, durationBounds = ConnectBounds(), DurationBounds()

// joined notes that a client has got its server.
func (a *account) joined(c *conn) { a.connect.observe(connectBounds, c.connected) }

// ended notes how a connection has ended.
func (a *account) ended(c *conn, r *splice.Result) {
	if w := r.Stats.Wire; w != nil && w.Left {
		return // it goes on, without this process
	}
	a.duration.observe(durationBounds, r.Ended.Sub(c.began))
	count(&a.ends, EndKey{Reason: r.AToB.Reason})
	count(&a.ends, EndKey{ToClient: true, Reason: r.BToA.Reason})
	engine, why := CarriedBy(r.Stats)
	count(&a.engines, EngineKey{engine, why})
	for _, k := range refusals(&r.Stats) {
		count(&a.refusals, k)
	}
}

// notRefused is what WireStats.Refused says of one that was not.
const notRefused splice.Why = 0

// refusals are the engines that a connection was to have and could not.
func refusals(st *splice.Stats) []EngineKey {
	var keys []EngineKey
	if w := st.Wire; w != nil && w.Refused != notRefused {
		keys = append(keys, EngineKey{splice.EngineWire, w.Refused})
	}
	for _, why := range []splice.Why{st.AToB.Why, st.BToA.Why} {
		if why.RefusesSplice() {
			return append(keys, EngineKey{splice.EngineSplice, why})
		}
	}
	return keys
}

// copyOf returns the account without what live connections add.
func (a *account) copyOf() Account {
	clone := func(h Histogram) Histogram {
		h.Counts = append([]uint64(nil), h.Counts...)
		return h
	}
	return Account{
		Failures: maps.Clone(a.failures), Ends: maps.Clone(a.ends), Engines: maps.Clone(a.engines), Refusals: maps.Clone(a.refusals),
		Carried: make(map[splice.Engine]Carried), Joined: make(map[splice.Engine]int),
		Connect: clone(a.connect), Duration: clone(a.duration),
	}
}

// CarriedBy names the engine of the direction that has carried more.
func CarriedBy(s splice.Stats) (splice.Engine, splice.Why) {
	if s.AToB.Bytes > s.BToA.Bytes {
		return s.AToB.Engine, s.AToB.Why
	}
	return s.BToA.Engine, s.BToA.Why
}

// rise returns the greater of both, by direction, and keeps it. What was copied is
// a difference of two counts of a live session, the greater of which is read
// first: it may be found too small for a moment, never too great.
func (c *Carried) rise(seen Carried) Carried {
	c.ToServer = max(c.ToServer, seen.ToServer)
	c.ToClient = max(c.ToClient, seen.ToClient)
	return *c
}
