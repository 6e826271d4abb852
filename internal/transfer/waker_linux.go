package transfer

import "github.com/spliced-io/spliced/internal/sys"

// A waker ends waits in poll(2), which deadlines don't reach. It has an eventfd
// only if an end waits there.
type waker struct {
	fd  int
	has bool
}

// arm gives the ends their watch, and those that wait in poll(2) what the
// watch's interrupt wakes. A nil end is none.
func (k *waker) arm(w *watch, ends ...*end) (err error) {
	byDeadline := w.interrupt
	w.interrupt = func() {
		byDeadline()
		if k.has {
			_ = sys.EventfdAdd(k.fd)
		}
	}
	for _, e := range ends {
		if e == nil {
			continue
		}
		e.watch = w
		if e.polled || !e.waits() {
			continue
		}
		if !k.has {
			if k.fd, err = sys.Eventfd(); err != nil {
				return err
			}
			k.has = true
		}
		e.wake = k.fd
	}
	return nil
}

func (k *waker) close() {
	if k.has {
		_ = sys.Close(k.fd)
	}
}
