package transfer

import (
	"context"
	"sync/atomic"
	"time"
)

// A watch ends a copy that waits, when its context ends or a limit is over. It
// has a goroutine only if one of them can happen.
type watch struct {
	interrupt func() // ends the waits for both ends
	restore   func() // makes both usable again

	started  time.Time
	progress atomic.Int64 // nanoseconds from started to the last byte
	outcome  atomic.Pointer[Outcome]
	quit     chan struct{}
	over     chan struct{}
}

func (w *watch) start(ctx context.Context, idle, lifetime time.Duration) {
	w.started = time.Now()
	if ctx.Done() == nil && idle == 0 && lifetime == 0 {
		return
	}
	if ctx.Err() != nil {
		w.cutBy(Canceled) // nothing is moved
		return
	}
	w.quit, w.over = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(w.over)
		w.run(ctx, idle, lifetime)
	}()
}

func (w *watch) run(ctx context.Context, idle, lifetime time.Duration) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Since(w.started)
		due, o := time.Duration(-1), Idle
		if idle > 0 {
			due = time.Duration(w.progress.Load()) + idle
		}
		if lifetime > 0 && (due < 0 || lifetime < due) {
			due, o = lifetime, Lifetime
		}
		var expired <-chan time.Time
		if due >= 0 {
			if now >= due {
				w.cutBy(o)
				return
			}
			timer.Reset(due - now)
			expired = timer.C
		}
		select {
		case <-ctx.Done():
			w.cutBy(Canceled)
			return
		case <-w.quit:
			return
		case <-expired:
		}
	}
}

func (w *watch) cutBy(o Outcome) {
	w.outcome.Store(&o)
	w.interrupt()
}

// stop waits for the watch to be over, and undoes what it did.
func (w *watch) stop() {
	if w.quit != nil {
		close(w.quit)
		<-w.over
	}
	w.restore()
}

// cut says whether, and why, the copy has to end.
func (w *watch) cut() (Outcome, bool) {
	if w == nil {
		return 0, false
	}
	if o := w.outcome.Load(); o != nil {
		return *o, true
	}
	return 0, false
}

func (w *watch) moved() {
	if w.quit != nil {
		w.progress.Store(int64(time.Since(w.started)))
	}
}
