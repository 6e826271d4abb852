package splice

import "github.com/spliced-io/spliced/internal/engine"

// A Past is what a session has behind it that [Continue] goes on with: counts,
// limits and what is left of their time. It can be passed to another process, as
// JSON for instance.
type Past = engine.Past

// A PastDirection is one direction of a [Past].
type PastDirection = engine.PastDirection

// Continue makes [Start] go on with a session that has ended by
// [Session.HandOver], with the connections that [Session.Conns] gave, in this
// process or another one. Counts and clocks go on from where they were, the
// limits are those of p, and a direction that had ended stays so. What was
// undelivered is to be [Prefetched]. EINVAL: p makes no sense, or nothing of it
// goes on. It needs Linux and connections with a descriptor.
func Continue(p Past) Option {
	return func(o *options) {
		o.past = &p
		o.maxAToB, o.maxBToA = p.AToB.Max, p.BToA.Max
		o.rateAToB, o.rateBToA = p.AToB.Rate, p.BToA.Rate
		o.idle, o.halfClose, o.lifetime = p.Idle, p.HalfClose, p.MaxLife
	}
}

// HandOver ends the session at once so that [Continue] can go on with it, and
// waits for nobody: Done tells when it has ended, [Session.Past] then what it
// leaves, and the reason of a direction that goes on is [Stopped]. A session that
// is about to end by itself does so instead, with other reasons. One whose
// packets are spliced by [EngineWire] is taken back into sockets first, which
// may take some round trips. False: this session, without descriptors, can't be
// handed over, and goes on.
func (s *Session) HandOver() bool {
	h, ok := s.carrier.(interface{ HandOver() })
	if ok {
		h.HandOver()
	}
	return ok
}

// CanHandOver says whether HandOver is possible.
func (s *Session) CanHandOver() bool {
	_, ok := s.carrier.(interface{ HandOver() })
	return ok
}

// Past returns what a session that HandOver has ended leaves. It is complete
// once Done is closed.
func (s *Session) Past() Past {
	if h, ok := s.carrier.(interface{ Past() Past }); ok {
		return h.Past()
	}
	return Past{}
}
