package run

import (
	"errors"

	"github.com/spliced-io/spliced/internal/fio/ioengine"
)

// transfer makes a pass of I/O.
func (w *worker) transfer() (err error) {
	w.phaseBegin()
	defer func() { w.phaseEnd() }()
	if w.async != nil {
		err = w.asyncLoop()
	} else {
		err = w.syncLoop()
	}
	if errors.Is(err, errFull) {
		err = nil
	}
	if e := w.checksDone(); err == nil {
		err = e
	}
	return err
}

// syncLoop makes one I/O after the other. It does not allocate.
func (w *worker) syncLoop() error {
	u := w.units[0]
	now := w.now()
	for !w.stopped() && !w.over(now) {
		if w.unsyncedDue() {
			if err := w.syncFile(u); err != nil {
				return err
			}
		}
		ok, err := w.next(u)
		if err != nil || !ok {
			return err
		}
		if w.throttle.active {
			if !w.throttle.wait(w, u) {
				return nil
			}
			now = w.now()
		}
		u.Start = now
		if u.Dir == Write && (w.fillEach || w.verifier != nil) {
			now = w.now()
			u.Start = now
			w.fill(u, now)
		}
		issue := w.now()
		u.Issue = issue
		w.st.Depth[0]++
		w.st.Submit[1]++
		w.st.Submits++
		w.st.Complete[1]++
		w.st.Fetches++
		w.engine.Do(u)
		for u.Err == nil && u.N < u.Len && u.N > 0 {
			if w.short(u); u.Len == 0 {
				break
			}
			w.engine.Do(u)
		}
		now = w.now()
		if err := w.complete(u, now); err != nil {
			return err
		}
		if w.eof {
			return nil
		}
		if w.backlogDue() {
			if err := w.verifyBacklog(); err != nil {
				return err
			}
			now = w.now()
		}
	}
	return nil
}

// short continues a transfer that moved only a part.
func (w *worker) short(u *ioengine.Unit) {
	if u.Dir <= Trim {
		w.st.Dirs[u.Dir].Short++
	}
	u.At += u.N
	u.Offset += int64(u.N)
	u.Len -= u.N
	u.N = 0
	if u.Offset >= u.File.Size && u.Dir == Read {
		u.Len = 0 // the file's end, not an error
	}
}
