package engine

import (
	"net/netip"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
)

// meta is what a successor of this process needs to know of a spliced session.
func (w *wiring) meta(s *Session) wire.Meta {
	return wire.Meta{
		Base: w.base, Started: s.started.UnixNano(), Closed: int64(w.stats.Closed),
		Max:  [2]int64{s.dirs[0].max, s.dirs[1].max},
		Idle: int64(s.limits.Idle), HalfClose: int64(s.limits.HalfClose), Lifetime: int64(s.limits.Lifetime),
	}
}

// AdoptWire makes sessions of the flows that an earlier process of the same
// instance has left: they go on to count, keep their limits, and end. accepted
// is told of each and returns who hears of its end.
func (r *Reactor) AdoptWire(policy WirePolicy, accepted func(s *Session, a, b netip.AddrPort) Handler) (int, error) {
	plane, err := r.OpenWire(policy.config())
	if err != nil {
		return 0, err
	}
	sessions := make(map[*wire.Pair]*Session)
	left, err := plane.Adopt(func(p *wire.Pair) func() {
		s := &Session{own: true}
		sessions[p] = s
		return func() {
			if l := s.adoptedBy.Load(); l != nil { // else it looks when it joins
				l.post(command{what: wireNews, s: s})
			}
		}
	})
	if err != nil {
		return 0, err
	}
	for _, a := range left {
		s := sessions[a.Pair]
		s.timer.owner = s
		s.limits = Limits{
			Idle: time.Duration(a.Meta.Idle), HalfClose: time.Duration(a.Meta.HalfClose), Lifetime: time.Duration(a.Meta.Lifetime),
		}
		s.wire = &wiring{pair: a.Pair, phase: wireOn, base: a.Meta.Base}
		s.wire.stats.Switched, s.wire.stats.Closed = true, time.Duration(a.Meta.Closed)
		for i := range s.dirs {
			s.wire.before[i] = uint32(Copy)<<8 | uint32(WhyNoBytes)
		}
		for i := range s.dirs {
			s.ends[i] = endpoint{session: s, fd: -1, slot: -1}
			s.dirs[i].init(&s.ends[i], &s.ends[1-i], a.Meta.Max[i], nil)
			s.dirs[i].out.Store(a.Meta.Base[i])
			s.dirs[i].choice.view.Store(uint32(Wire)<<8 | uint32(WhyHandedOver))
		}
		if v, err := a.Pair.Look(); err == nil { // else its first look says so
			_ = a.Pair.Limit(&v, s.wire.roomLeft(s, &v)) // and ends what its predecessor had begun
		}
		s.wired.Store(newWired(a.Pair, a.Meta.Base))
		s.started = time.Unix(0, a.Meta.Started)
		from, to := a.Addrs()
		h := accepted(s, from, to)
		s.onEnd, s.wire.onSockets = h.Ended, h.Sockets
		s.wire.holds(s, false)
		for {
			l, err := r.loop()
			if err != nil {
				return 0, err
			}
			s.loop, s.startedAt = l, r.clock()-time.Since(s.started)
			s.adoptedBy.Store(l)
			if l.post(command{what: join, s: s}) {
				break
			}
		}
	}
	return len(left), nil
}
