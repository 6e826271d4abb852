package portable

import (
	"sync"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
)

const (
	// drainPatience is how long a broken connection is read for what it had
	// sent before. A socket answers at once; a type that would wait is cut off.
	drainPatience = 100 * time.Millisecond

	// Unacknowledged bytes are given time before a RST throws them away: the
	// owner looks again after abortFirst, then at growing distances.
	abortFirst    = time.Millisecond
	abortMost     = 50 * time.Millisecond
	abortPatience = 60 * time.Second
)

// An owner runs a session: it alone decides when a direction is cut.
type owner struct {
	*Session
	live   int
	halfAt time.Time // when the first direction ended
	late   time.Time // when the reading of a broken connection is cut, or zero
	cut    bool      // everything is: the clocks stand still
}

func (o *owner) run() {
	var directions sync.WaitGroup
	o.live = 2
	directions.Go(o.aToB.run)
	directions.Go(o.bToA.run)
	o.watch()
	directions.Wait()
	o.reset()
	o.forwardLateFIN()
	o.a.clearDeadlines()
	o.b.clearDeadlines()
	o.result = engine.Result{AToB: o.aToB.end(), BToA: o.bToA.end(), Stats: o.Stats(), Ended: time.Now()}
	if o.spec.OnEnd != nil {
		o.spec.OnEnd(o.result)
	}
	close(o.done)
}

// watch returns when both directions have ended.
func (o *owner) watch() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	stop, hurry := o.stop, o.hurry
	for o.live > 0 {
		var due <-chan time.Time
		if at := o.due(); !at.IsZero() {
			timer.Reset(time.Until(at))
			due = timer.C
		}
		select {
		case d := <-o.ended:
			o.live--
			o.directionEnded(d)
		case <-stop:
			stop = nil
			o.cutReads(cause{engine.Stopped, engine.ErrStopped})
		case <-hurry:
			// Stop closes both channels, and select takes either first: a direction
			// that is interrupted before it is cut takes that for a broken connection.
			stop, hurry = nil, nil
			o.cutAll(cause{engine.Stopped, engine.ErrStopped})
		case <-due:
			o.expire(time.Now())
		}
	}
}

// cutReads ends the directions that are left, after what they have read is
// delivered.
func (o *owner) cutReads(c cause) {
	// Both know why before either meets an interrupted connection.
	var cut []*direction
	for _, d := range []*direction{o.aToB, o.bToA} {
		if d.reasonNow() == engine.Running && d.cut.CompareAndSwap(nil, &c) {
			cut = append(cut, d)
		}
	}
	for _, d := range cut {
		d.stopReading()
	}
}

// cutWrites ends deliveries that go on after cutReads.
func (o *owner) cutWrites() {
	for _, d := range []*direction{o.aToB, o.bToA} {
		if d.reasonNow() == engine.Running {
			d.dst.interrupt()
		}
	}
}

func (o *owner) cutAll(c cause) {
	o.cutReads(c)
	o.cutWrites()
}

func (d *direction) reasonNow() engine.Reason { return engine.Reason(d.state.Load()) }

func (o *owner) directionEnded(d *direction) {
	if o.live == 0 {
		return
	}
	o.halfAt = time.Now()
	switch err := d.src.failure(); {
	case err != nil:
		// Nothing can be delivered to d's source any more.
		o.cutAll(failed(engine.ResetByDrain, err))
	case d.dst.failure() != nil:
		// The other direction reads what the broken connection still has.
		o.late = o.halfAt.Add(drainPatience)
	}
}

// due is when the owner must act next, zero for never.
func (o *owner) due() (at time.Time) {
	sooner := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if o.cut {
		return at
	}
	if t, _ := o.idleAt(); !t.IsZero() {
		sooner(t)
	}
	if l := o.spec.Limits.Lifetime; l > 0 {
		sooner(o.started.Add(l))
	}
	if !o.late.IsZero() {
		sooner(o.late)
	}
	return at
}

// idleAt is when the session will have been idle for too long, and what that
// ends it with.
func (o *owner) idleAt() (time.Time, cause) {
	limit, c := o.spec.Limits.Idle, cause{engine.Idle, engine.ErrIdle}
	since := o.started.Add(time.Duration(max(o.progress.Load(), o.braked.Load())))
	if o.live < 2 {
		if o.halfAt.After(since) {
			since = o.halfAt
		}
		if h := o.spec.Limits.HalfClose; h > 0 {
			limit, c = h, cause{engine.HalfClosed, engine.ErrHalfClose}
		}
	}
	if limit <= 0 {
		return time.Time{}, c
	}
	return since.Add(limit), c
}

func (o *owner) expire(now time.Time) {
	if l := o.spec.Limits.Lifetime; l > 0 && !now.Before(o.started.Add(l)) {
		o.cutAll(cause{engine.Lifetime, engine.ErrLifetime})
		o.disarm()
		return
	}
	if at, c := o.idleAt(); !at.IsZero() && !now.Before(at) {
		o.cutAll(c)
		o.disarm()
		return
	}
	if !o.late.IsZero() && !now.Before(o.late) {
		o.late = time.Time{}
		for _, d := range []*direction{o.aToB, o.bToA} {
			if err := d.src.failure(); err != nil && d.reasonNow() == engine.Running {
				c := failed(engine.ResetBySource, err)
				d.cut.CompareAndSwap(nil, &c)
				d.stopReading()
			}
		}
	}
}

// disarm stops the clocks: everything is cut already.
func (o *owner) disarm() {
	o.cut, o.late = true, time.Time{}
}

// reset passes a broken connection on to the other, once the other's peer has
// what was delivered.
func (o *owner) reset() {
	for _, pair := range [][2]*side{{o.a, o.b}, {o.b, o.a}} {
		if broken, other := pair[0], pair[1]; broken.failure() != nil && other.failure() == nil {
			o.awaitDelivery(other)
			other.reset()
		}
	}
}

func (o *owner) awaitDelivery(s *side) {
	patience := abortPatience
	if l := o.spec.Limits.Lifetime; l > 0 {
		patience = min(patience, time.Until(o.started.Add(l+engine.LifetimeGrace)))
	}
	giveUp := time.After(patience)
	for wait := abortFirst; s.unacknowledged() > 0; wait = min(2*wait, abortMost) {
		select {
		case <-time.After(wait):
		case <-o.hurry:
			return
		case <-giveUp:
			return
		}
	}
}

// forwardLateFIN closes what could not be half-closed. Both directions must
// have ended by EOF: else the connection is still of use.
func (o *owner) forwardLateFIN() {
	if o.aToB.reason != engine.EOF || o.bToA.reason != engine.EOF {
		return
	}
	for _, s := range []*side{o.a, o.b} {
		if !s.canCloseWrite() {
			s.close()
		}
	}
}
