package run

import (
	"syscall"

	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/stat"
)

// asyncLoop keeps up to iodepth units on the way.
//
// Invariant, here and in all that it calls: a unit is in w.free, or it is on
// its way and counted in w.inflight, or exactly one function holds it. Whoever
// waits may get units back into w.free, so none is looked at there and taken
// later.
func (w *worker) asyncLoop() error {
	for !w.stopped() {
		more, err := w.refill()
		if err != nil {
			return w.abort(err)
		}
		if w.inflight == 0 {
			if !more {
				break
			}
			continue
		}
		least := 1
		if !more {
			least = w.inflight
		} else if w.inflight > w.o.DepthLow {
			least = w.inflight - w.o.DepthLow + 1
		}
		if err := w.reap(max(least, min(w.o.DepthCompleteMin, w.inflight))); err != nil {
			return w.abort(err)
		}
		if w.backlogDue() {
			if err := w.flushQueue(); err != nil {
				return w.abort(err)
			}
			if err := w.verifyBacklog(); err != nil {
				return err
			}
		}
	}
	if err := w.flushQueue(); err != nil {
		return w.abort(err)
	}
	return nil
}

// refill starts as many units as may be on the way. False: there are no more in
// this pass.
func (w *worker) refill() (more bool, err error) {
	more = !w.over(w.now()) && !w.eof
	for more && len(w.free) > 0 && w.inflight < w.depth.limit {
		if w.unsyncedDue() {
			if err := w.flushQueue(); err != nil {
				return false, err
			}
			u := w.take()
			err := w.syncFile(u)
			w.release(u)
			if err != nil {
				return false, err
			}
		}
		u := w.take()
		ready, err := w.ready(u)
		if err != nil || !ready {
			w.release(u)
			return false, err
		}
		u.Start = w.now()
		if u.Dir == Write && (w.fillEach || w.verifier != nil) {
			w.fill(u, u.Start)
		}
		if err := w.queue(u); err != nil {
			return false, err
		}
		more = !w.over(u.Start)
	}
	return more, nil
}

// take takes a unit out of the free ones, of which there is one.
func (w *worker) take() *ioengine.Unit {
	last := len(w.free) - 1
	u := w.free[last]
	w.free = w.free[:last]
	return u
}

// ready chooses an I/O for the unit and waits until it may start. False: there
// is none.
func (w *worker) ready(u *ioengine.Unit) (bool, error) {
	if ok, err := w.next(u); err != nil || !ok {
		return false, err
	}
	if w.throttle.active {
		if w.throttle.due(w, u) {
			// Waiting with I/O on the way would count the wait.
			if err := w.flushQueue(); err != nil {
				return false, err
			}
		}
		if !w.throttle.wait(w, u) {
			return false, nil
		}
	}
	if w.o.Serialize {
		for w.overlaps(u) {
			if err := w.reap(1); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// queue hands a unit to the engine, and all that are queued to the kernel if
// they make a batch.
func (w *worker) queue(u *ioengine.Unit) error {
	u.Busy = true
	u.Issue = w.now()
	if err := w.push(u); err != nil {
		return err
	}
	w.inflight++
	w.batch++
	w.st.Depth[stat.DepthClass(w.inflight)]++
	if w.batch >= w.o.DepthBatch {
		if err := w.commit(); err != nil {
			return err
		}
	}
	if !w.o.NoSlat && u.Dir <= Trim && !w.ramping {
		// Until the kernel has it; with a batch, until it was queued.
		now := w.now()
		w.lat.submitted(w, u, now-u.Start, now)
	}
	return nil
}

// push makes room in the engine if there is none: it has a place for each unit,
// but not for what was queued and not committed.
func (w *worker) push(u *ioengine.Unit) error {
	if w.async.Queue(u) {
		return nil
	}
	err := w.commit()
	if err == nil && !w.async.Queue(u) {
		err = syscall.EAGAIN
	}
	if err != nil {
		w.release(u)
	}
	return err
}

func (w *worker) commit() error {
	if w.batch > 0 {
		w.st.Submits++
		w.st.Submit[stat.BatchClass(w.batch)]++
		w.batch = 0
	}
	return w.async.Commit()
}

// reap takes at least so many finished units and accounts for them.
func (w *worker) reap(least int) error { return w.collect(least, w.complete) }

// collect waits for at least so many units, goes on with those that moved only
// a part, and calls end for the others. It returns the first error of end after
// all of them.
func (w *worker) collect(least int, end func(u *ioengine.Unit, now int64) error) error {
	if err := w.commit(); err != nil {
		return err
	}
	var err error
	w.finished, err = w.async.Wait(least, max(least, w.o.DepthCompleteMax), w.finished[:0])
	w.st.Fetches++
	w.st.Complete[stat.BatchClass(len(w.finished))]++
	now := w.now()
	for _, u := range w.finished {
		w.inflight--
		if u.Err == nil && u.N > 0 && u.N < u.Len {
			if w.short(u); u.Len > 0 {
				if e := w.resume(u); e != nil && err == nil {
					err = e
				}
				continue
			}
		}
		e := end(u, now)
		w.release(u)
		if e != nil && err == nil {
			err = e
		}
	}
	return err
}

// resume asks for the rest of a unit.
func (w *worker) resume(u *ioengine.Unit) error {
	if err := w.push(u); err != nil {
		return err
	}
	w.inflight++
	return w.async.Commit()
}

func (w *worker) release(u *ioengine.Unit) {
	u.Busy = false
	w.free = append(w.free, u)
}

// abort waits for what is on the way, so that its memory can be freed.
func (w *worker) abort(cause error) error {
	_ = w.commit()
	for w.inflight > 0 {
		done, err := w.async.Wait(w.inflight, w.inflight, w.finished[:0])
		if err != nil || len(done) == 0 {
			break
		}
		for _, u := range done {
			w.inflight--
			w.release(u)
		}
	}
	return cause
}

// flushQueue waits for all units.
func (w *worker) flushQueue() error {
	for w.inflight > 0 {
		if err := w.reap(w.inflight); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) overlaps(u *ioengine.Unit) bool {
	for _, v := range w.units {
		if v != u && v.Busy && v.File == u.File && v.Block < u.Block+int64(u.Size) && u.Block < v.Block+int64(v.Size) {
			return true
		}
	}
	return false
}
