package engine

import (
	"errors"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
)

const (
	// A session that was asked for this engine is handed over once it has moved so
	// much, or is so old. Others are mostly an exchange and its end: entries, probes
	// and windows for them cost a third of their rate, and come too late.
	wireSoonBytes = 64 << 10
	wireSoonAge   = 3 * time.Millisecond
)

// ErrEndedByHand means that somebody has ended a spliced pair from outside, as
// spliced flows --end does. Both sides got a RST.
var ErrEndedByHand = errors.New("ended by hand")

// ErrHandOver means that a pair was lost at its hand-over to the program: what
// its sockets and the program knew did not fit. Both sides got a RST.
var ErrHandOver = errors.New("hand-over failed")

type wirePhase uint8

const (
	wireWaiting   wirePhase = iota // not worth it yet
	wireWatching                   // in the table; packets of both sides are to be seen
	wireSwitching                  // to be switched when each has room for what the other may send
	wireDraining                   // switched; the sockets still have something to deliver
	wireLeaving                    // spliced; the sockets are still there
	wireOn                         // spliced
	wireReturning                  // spliced, to be taken back when it is at rest
	wireOff                        // not to be spliced
)

// A wiring is a session's way to the engine wire. Its loop owns it.
type wiring struct {
	policy WirePolicy
	asked  bool      // for this engine, by name
	from   *Acceptor // nil: the connections are the caller's
	pair   *wire.Pair
	phase  wirePhase
	at     time.Duration // loop clock: the next look; 0 is none
	began  time.Duration // loop clock: of the phase
	window wire.Window
	closed time.Duration // reactor clock: of when the window was set
	fixed  bool          // the receive buffers, before there is a pair
	halts  [2]bool       // at the last look
	dry    time.Duration // loop clock: of when there was enough to deliver, last
	left   int           // to deliver, then
	most   time.Duration // bounds the current attempt
	look   time.Duration // to the next look, while draining
	pause  time.Duration
	base   [2]int64  // bytes delivered before the switch
	before [2]uint32 // the choices before it
	back   takingBack
	stats  WireStats

	doubt doubt

	hears hearer // nil: nobody does
	bare  bool   // it was told that there are no sockets
}

// A hearer is the part of a [Handler] that is about the engine wire.
type hearer interface {
	Sockets(held bool)
	Note(Flow) string
}

// hearing is a hearer of functions, which may be nil.
type hearing struct {
	sockets func(held bool)
	note    func(Flow) string
}

func (h hearing) Sockets(held bool) {
	if h.sockets != nil {
		h.sockets(held)
	}
}

func (h hearing) Note(f Flow) string {
	if h.note != nil {
		return h.note(f)
	}
	return ""
}

// wireFor returns the wiring of a session to be, nil for none.
func wireFor(k Kind, policy WirePolicy, limits Limits) *wiring {
	switch {
	case k == Wire:
		policy = WirePolicy{
			Upgrade: true, AfterBytes: wireSoonBytes, AfterAge: wireSoonAge,
			Instance: policy.Instance, Root: policy.Root, settle: policy.settle,
		}
	case k != Auto || !policy.Upgrade:
		return nil
	default:
		if policy.AfterBytes == 0 {
			policy.AfterBytes = WireAfterBytes
		}
		if policy.AfterAge == 0 {
			policy.AfterAge = WireAfterAge
		}
	}
	if policy.settle == 0 {
		policy.settle = wireSettle
	}
	w := &wiring{policy: policy, asked: k == Wire, most: wireMost, pause: wirePause}
	if limits.braked() {
		w.refuse(wire.Braked)
	}
	return w
}

// carried says whether packets are spliced, so that the sockets are not to be
// touched.
func (w *wiring) carried() bool {
	return w != nil && (w.phase == wireLeaving || w.phase == wireOn || w.phase == wireReturning)
}

// draining says that the sockets are to deliver what they have, whatever happens.
func (w *wiring) draining() bool { return w != nil && w.phase == wireDraining }

func (w *wiring) refuse(why wire.Refusal) {
	w.phase, w.at = wireOff, 0
	w.stats.Refused = WhyWireNotTCP + Why(why-wire.NotTCP)
}

// step does what is next. The directions have just moved what they could.
func (w *wiring) step(l *loop, s *Session) {
	if w.phase == wireOff || s.over || s.dial != nil {
		return
	}
	if w.phase == wireDraining && (s.dirs[0].ended() || s.dirs[1].ended()) {
		w.drainEnded(l, s)
		return
	}
	if w.phase < wireDraining && (s.stopping || s.dirs[0].ended() || s.dirs[1].ended() || s.ends[0].hangup || s.ends[1].hangup) {
		if w.phase == wireWaiting && !w.asked {
			w.phase, w.at = wireOff, 0 // over before it was worth it: nothing was refused
			return
		}
		w.withdraw(l, s, wire.Ended)
		return
	}
	switch w.phase {
	case wireWaiting:
		w.consider(l, s)
	case wireWatching:
		if l.now >= w.at {
			w.begin(l, s)
		}
	case wireSwitching:
		w.try(l, s)
	case wireDraining:
		if l.now >= w.at {
			w.drain(l, s)
		}
	case wireLeaving:
		if l.now >= w.at {
			w.leave(l, s)
		}
	}
	w.goOn(l, s)
	w.publish(s)
}

func (w *wiring) publish(s *Session) {
	if old := s.wireStats.Load(); old == nil || *old != w.stats {
		st := w.stats
		s.wireStats.Store(&st)
	}
}

// withdraw gives up before the switch.
func (w *wiring) withdraw(l *loop, s *Session, why wire.Refusal) {
	if w.pair != nil {
		w.bound(l, wire.WindowOpen)
		w.pair.Withdraw()
		w.pair = nil
	}
	w.fix(s, false)
	w.refuse(why)
	w.publish(s)
}

func (p WirePolicy) config() wire.Config { return wire.Config{Instance: p.Instance, Root: p.Root} }

// wireNews: the program has seen a FIN acknowledged, or a RST.
func (s *Session) wireNews(l *loop) {
	w := s.wire
	switch {
	case w.carried():
		w.refresh(l, s)
	case w.draining():
		w.at = l.now
		w.step(l, s)
		s.settle(l)
	}
}

// expire does what is due, and says whether that was all.
func (w *wiring) expire(l *loop, s *Session) bool {
	if w.at != 0 && l.now >= w.at {
		w.step(l, s)
		if s.over || s.ended() {
			return true
		}
	}
	switch { // the idle limit counts from what the program has seen
	case w.carried():
		w.refresh(l, s)
	case w.draining():
		if v, err := w.pair.Look(); err == nil { // else it is lost at the next step
			s.crossed(&v)
		}
	}
	return s.over || s.ended()
}
