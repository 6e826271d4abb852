package portable

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
)

// A Session is a joined pair. Three goroutines carry it: one a direction, and
// an owner that starts them, keeps the clocks and waits for both.
type Session struct {
	spec       Spec
	a, b       *side
	aToB, bToA *direction
	started    time.Time
	progress   atomic.Int64 // nanoseconds from started to the last byte moved, 0 before
	braked     atomic.Int64 // nanoseconds from started to the end of a wait for bandwidth

	stopOnce, hurryOnce sync.Once
	stop                chan struct{} // closed: read nothing more
	hurry               chan struct{} // closed: deliver nothing more either
	ended               chan *direction
	done                chan struct{}
	result              engine.Result // the owner's until done is closed
}

// Start joins spec.A and spec.B.
func Start(spec Spec) *Session {
	s := &Session{
		spec:    spec,
		a:       &side{conn: spec.A},
		b:       &side{conn: spec.B},
		started: time.Now(),
		stop:    make(chan struct{}),
		hurry:   make(chan struct{}),
		ended:   make(chan *direction, 2),
		done:    make(chan struct{}),
	}
	// Deadlines of the control phase end with it.
	s.a.clearDeadlines()
	s.b.clearDeadlines()
	aToB, bToA := spec.Limits.Brakes()
	s.aToB = &direction{session: s, src: s.a, dst: s.b, first: spec.FromA, max: spec.Limits.MaxAToB, brake: aToB, wake: make(chan struct{}, 1)}
	s.bToA = &direction{session: s, src: s.b, dst: s.a, first: spec.FromB, max: spec.Limits.MaxBToA, brake: bToA, wake: make(chan struct{}, 1)}
	o := &owner{Session: s}
	go o.run()
	return s
}

// Stats is exact at the moment of the call: a byte counts when the drain's
// Write has returned.
func (s *Session) Stats() engine.Stats {
	st := engine.Stats{
		AToB: s.aToB.stats(), BToA: s.bToA.stats(),
		Started: s.started, LastProgress: s.started,
	}
	if p := s.progress.Load(); p != 0 {
		st.LastProgress = s.started.Add(time.Duration(p))
	}
	return st
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Wait waits for the end.
func (s *Session) Wait() engine.Result {
	<-s.done
	return s.result
}

// Stop ends the session: nothing more is read, and what is on the way is
// delivered, until ctx ends; what is left then is in the Result. A connection
// without deadlines is closed at once; Stop waits for ever if that does not
// end its Read and Write.
func (s *Session) Stop(ctx context.Context) engine.Result {
	s.stopOnce.Do(func() { close(s.stop) })
	select {
	case <-s.done:
	case <-ctx.Done():
		s.hurryOnce.Do(func() { close(s.hurry) })
		<-s.done
	}
	return s.result
}

// Discard closes both connections, with a RST where the type can, once Done is
// closed.
func (s *Session) Discard() {
	s.a.reset()
	s.b.reset()
}

func (s *Session) moved() { s.progress.Store(max(1, int64(time.Since(s.started)))) }

// brakedFor keeps the time that a direction has to wait for bandwidth from
// counting as its peers' idleness.
func (s *Session) brakedFor(wait time.Duration) {
	until := int64(time.Since(s.started) + wait)
	for old := s.braked.Load(); old < until && !s.braked.CompareAndSwap(old, until); old = s.braked.Load() {
	}
}
