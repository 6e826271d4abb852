package engine

import (
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
)

// An Adoption says what is to become of the flows of an instance.
type Adoption struct {
	// Lives says that the process which has had the instance lives: it has let go of it, with
	// [Reactor.LeaveWire], and Except are the flows that are its own yet. They, and what
	// it may have begun, are left alone: another AdoptWire, once it has ended, adopts or
	// removes what is left of them.
	Lives  bool
	Except []Flow
	// Accepted is told of each flow and returns who hears of its end; Connected and Failed of
	// that are not called. The [Past] is what was known of the session before, nil if nothing
	// was: what the table knows better is not taken from it.
	Accepted func(s *Session, f Flow) (Handler, *Past)
}

// meta is what a successor of this process needs to know of a spliced session.
func (w *wiring) meta(s *Session) wire.Meta {
	return wire.Meta{
		Base: w.base, Started: s.started.UnixNano(), Closed: int64(w.stats.Closed),
		Max:  [2]int64{s.dirs[0].max, s.dirs[1].max},
		Idle: int64(s.limits.Idle), HalfClose: int64(s.limits.HalfClose), Lifetime: int64(s.limits.Lifetime),
	}
}

// Note is what the process that had an adopted session has said of it, as long as the session is
// spliced; "" if it has said nothing.
func (s *Session) Note() string {
	if wired := s.wired.Load(); wired != nil {
		return wired.note
	}
	return ""
}

// noteFor is what a successor is to be told of a session.
func (w *wiring) noteFor() string {
	if w.policy.Instance == "" || w.hears == nil {
		return ""
	}
	return w.hears.Note(w.pair.Flow())
}

// PrepareWire gets everything ready to adopt the flows of an instance that another process has
// for now. Sessions wait with their hand-overs until [Reactor.AdoptWire] was called.
func (r *Reactor) PrepareWire(policy WirePolicy) (TableID, error) {
	plane, err := r.takeWire(policy.config(), wire.Prepare)
	if err != nil {
		return TableID{}, err
	}
	return plane.ID()
}

// WireTable is the table of an instance of this process; that of none if it has no such
// instance.
func (r *Reactor) WireTable(policy WirePolicy) (TableID, error) {
	if plane := r.wire.of(policy.config()).alive(); plane != nil {
		return plane.ID()
	}
	return TableID{}, nil
}

// LeaveWire lets another process have an instance: it is told which flows it must not adopt,
// since they are this process's yet. Sessions that are not handed over yet wait until AdoptWire
// is called again.
func (r *Reactor) LeaveWire(policy WirePolicy) []Flow {
	w := r.wire.of(policy.config())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = true
	if plane := w.alive(); plane != nil {
		return plane.LetGo()
	}
	return nil
}

// holdWire takes an instance.
func (r *Reactor) holdWire(policy WirePolicy) (*wire.Plane, error) {
	for {
		plane, err := r.takeWire(policy.config(), wire.Open)
		if err != nil {
			return nil, err
		}
		if err := plane.Hold(); err != wire.ErrClosed { // which one that was left is, after a while
			return plane, err
		}
	}
}

// AdoptWire takes an instance, and makes sessions of the flows that other processes have left
// under its name and that are not this one's already: they go on to count, keep their limits,
// and end. It returns how many there were.
func (r *Reactor) AdoptWire(policy WirePolicy, adoption Adoption) (int, error) {
	plane, err := r.holdWire(policy)
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
	}, adoption.Lives, adoption.Except)
	if err != nil {
		return 0, err
	}
	for i := range left {
		if err := r.adopt(sessions[left[i].Pair], &left[i], policy, adoption.Accepted); err != nil {
			for _, a := range left[i:] {
				a.Leave()
			}
			return i, err
		}
	}
	return len(left), nil
}

// adopt makes s the session of a flow. After an error nobody was told of it.
func (r *Reactor) adopt(s *Session, a *wire.Adopted, policy WirePolicy, accepted func(*Session, Flow) (Handler, *Past)) error {
	l, err := r.loop()
	if err != nil {
		return err
	}
	s.timer.owner = s
	s.limits = Limits{
		Idle: time.Duration(a.Meta.Idle), HalfClose: time.Duration(a.Meta.HalfClose), Lifetime: time.Duration(a.Meta.Lifetime),
	}
	s.wire = &wiring{policy: policy, pair: a.Pair, phase: wireOn, base: a.Meta.Base}
	s.wire.stats.Switched, s.wire.stats.Closed = true, time.Duration(a.Meta.Closed)
	s.wire.publish(s) // whoever asks before its loop has seen it knows that it is spliced
	for i := range s.dirs {
		s.wire.before[i] = uint32(Copy)<<8 | uint32(WhyNoBytes)
	}
	for i := range s.dirs {
		s.ends[i] = endpoint{session: s, fd: -1, slot: -1}
		s.dirs[i].init(&s.ends[i], &s.ends[1-i], a.Meta.Max[i], nil)
		s.dirs[i].out.Store(a.Meta.Base[i])
		s.dirs[i].choice.view.Store(uint32(Wire)<<8 | uint32(WhyHandedOver))
	}
	moved := int64(0)
	if v, err := a.Look(); err == nil { // else its first look says so
		if !v.Divided { // then nothing is to go across
			_ = a.Limit(&v, s.wire.roomLeft(s, &v)) // and ends what its predecessor had begun
		}
		moved = v.LastMoved
	}
	wired := newWired(a.Pair, a.Meta.Base)
	wired.note = a.Note
	wired.alone.Store(true)
	s.wired.Store(wired)
	s.started = time.Unix(0, a.Meta.Started)
	h, past := accepted(s, a.Flow())
	s.onEnd, s.wire.hears = h.Ended, h
	s.recall(past, moved)
	s.wire.holds(s, false)
	for {
		now := r.clock()
		s.loop, s.startedAt = l, now-time.Since(s.started)
		if s.quiet > 0 {
			s.progress.Store(int64(now - s.quiet))
		}
		s.adoptedBy.Store(l)
		if l.post(command{what: join, s: s}) {
			return nil
		}
		if l, err = r.loop(); err != nil { // no descriptors: the flow is left, and said to be
			s.wire.stats.Left = true
			s.wire.publish(s)
			s.wired.Store(nil)
			a.Leave()
			s.onEnd(s.Result())
			return nil
		}
	}
}

// recall has an adopted session go on where it was: its idle limit counts from the last byte,
// whoever has seen that.
func (s *Session) recall(past *Past, moved int64) {
	if past != nil {
		for i, d := range [2]*PastDirection{&past.AToB, &past.BToA} {
			s.dirs[i].spliced.Store(max(0, min(d.Spliced, s.dirs[i].out.Load())))
		}
		s.quiet = max(0, past.Quiet)
	}
	if moved > 0 { // since the switch
		s.quiet = max(1, time.Duration(sys.Monotonic()-moved))
	}
	s.quiet = min(s.quiet, max(0, time.Since(s.started)))
}

// Flow names the session's flow, if its packets are spliced under the name of an instance and
// nothing else is needed for that: [Session.Leave] has it go on without this process. The [Past]
// is for [Adoption.Accepted].
func (s *Session) Flow() (Flow, Past, bool) {
	wired := s.wired.Load()
	if wired == nil || !wired.alone.Load() || !wired.pair.Kept() {
		return Flow{}, Past{}, false
	}
	st := s.Stats()
	p := s.past([2]DirectionStats{st.AToB, st.BToA}, time.Since(st.Started), time.Since(st.LastProgress))
	return wired.pair.Flow(), p, true
}
