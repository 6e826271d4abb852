package engine

import (
	"fmt"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
)

const (
	// wireSettle is how long the sockets stay after they have become needless: a
	// packet that was past the program by then has reached its socket (an RCU
	// grace period, with room to spare).
	wireSettle = 30 * time.Millisecond
	// wireDrainMost is the greatest distance of looks at what the sockets still
	// have to deliver.
	wireDrainMost = 50 * time.Millisecond
)

// switched: data goes across now.
func (w *wiring) switched(l *loop, s *Session) {
	undelivered, err := w.pair.Undelivered(s.held())
	if w.window == wire.WindowClosed {
		w.stats.Closed += l.reactor.clock() - w.closed
	}
	w.stats.Attempts++
	w.stats.Switched = true
	w.phase, w.look = wireDraining, time.Millisecond
	if err != nil {
		w.lose(l, s, err)
		return
	}
	for i := range s.dirs {
		w.base[i] = s.dirs[i].out.Load() - undelivered[i]
		w.before[i] = s.dirs[i].choice.view.Load()
	}
	s.wired.Store(newWired(w.pair, w.base))
	w.publish(s)
	w.drain(l, s)
	l.queue(s) // what was halted
}

// drain waits for the sockets to have nothing left to deliver.
func (w *wiring) drain(l *loop, s *Session) {
	drained, err := w.pair.Drained()
	if err == nil && drained && s.held() == [2]int{} {
		err = w.pair.Settle(w.meta(s), w.noteFor())
	} else if err == nil && w.back.by != 0 && l.now >= w.back.by {
		s.stopAll(l, Stopped, ErrStopped) // with a RST to both
		return
	} else if err == nil {
		w.at = l.now + w.look
		w.look = min(2*w.look, wireDrainMost)
		return
	}
	if err != nil {
		w.lose(l, s, err)
		return
	}
	for i := range s.dirs {
		s.dirs[i].choice.view.Store(uint32(Wire)<<8 | uint32(WhyHandedOver))
	}
	w.phase, w.at = wireLeaving, l.now+w.policy.settle
}

// drainEnded is what becomes of a draining pair of which a direction has ended. After a reset the sockets deliver
// what they have received, until the program knows that the receiver has it: the socket need not hear
// of that again. Else they don't fit what has gone across, and both sides are told.
func (w *wiring) drainEnded(l *loop, s *Session) {
	for i := range s.dirs {
		over := false
		switch s.dirs[i].reason() {
		case Running, ResetByDrain:
		case ResetBySource:
			got, err := w.pair.Got(i)
			over = got || err != nil
		default:
			over = true
		}
		if over {
			w.abort(l, s)
			for i := range s.ends {
				s.ends[i].readable = true // whoever reads finds out
			}
			l.queue(s)
			return
		}
	}
	w.at = 0 // tryAbort looks again
}

// lose ends a session whose two sides don't fit any more.
func (w *wiring) lose(l *loop, s *Session, err error) {
	err = fmt.Errorf("%w: %w", ErrHandOver, err)
	w.stats.Lost = true
	w.cut(l, s)
	for i := range s.ends {
		s.ends[i].reset()
	}
	s.stopAll(l, Failed, err)
}

// leave gives up the sockets.
func (w *wiring) leave(l *loop, s *Session) {
	if drained, err := w.pair.Drained(); err != nil {
		w.lose(l, s, err)
		return
	} else if !drained {
		// It came late: the sockets deliver it.
		w.stats.Late++
		w.pair.Unsettle()
		w.phase, w.look = wireDraining, time.Millisecond
		w.at = l.now + w.look
		for i := range s.ends {
			s.ends[i].readable = true
		}
		l.queue(s)
		return
	}
	w.pair.Dissolve()
	for i := range s.ends {
		e := &s.ends[i]
		l.drop(e)
		_ = sys.EpollDel(l.ep, e.fd)
		_ = sys.Close(e.fd)
		e.fd = -1
	}
	l.reactor.release(s)
	s.ends[0].cookie = 0
	w.phase, w.at = wireOn, 0
	s.wired.Load().alone.Store(true)
	w.holds(s, false)
	w.refresh(l, s) // what was reported so far
}
