package engine

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
)

const (
	// wireRoom is how many bytes a limited direction must have left for a
	// hand-over to be worth it: the last of them go by sockets again, after a
	// pause.
	wireRoom = 4 << 20
	// wireAsk is the distance of questions for what is not acknowledged yet, the
	// first look comes wireBackFirst after the other, then ever more slowly.
	wireAsk       = 300 * time.Millisecond
	wireBackFirst = time.Millisecond
	wireBackMost  = 100 * time.Millisecond
	// wireBackPatience is how long a Stop whose context has ended waits for
	// acknowledgements of what is under way between the peers.
	wireBackPatience = 2 * time.Second
	// wirePortPatience is how long another socket of this machine may have the
	// addresses that one of the sockets is to get again.
	wirePortPatience = 30 * time.Second
)

// ErrTakeBack means that a spliced pair was to get its sockets back, and could
// not. Both sides got a RST.
var ErrTakeBack = errors.New("the spliced connections could not be taken back")

// takingBack is the way from the program to sockets again.
type takingBack struct {
	why      Why           // it has to be; WhyNoBytes if it has not
	leave    bool          // the session is to end, the flow to go on
	by       time.Duration // loop clock: it has failed; 0 is never
	askAt    time.Duration // loop clock: of the next question
	pause    time.Duration
	building bool          // the sockets are being made
	freeBy   time.Duration // loop clock: the addresses must be free; 0 if they were not found taken
}

// returned is what has become of a pair that was taken back.
type returned struct {
	fds [2]int
	err error
}

// goOn moves a spliced session towards its end, if it is to have one.
func (w *wiring) goOn(l *loop, s *Session) {
	if s.ended() || s.over {
		return
	}
	switch {
	case w.phase == wireOn && w.back.leave:
		w.depart(l, s)
	case w.phase == wireOn && (s.stopping || w.back.why != WhyNoBytes):
		w.takeBack(l, s)
	case w.phase == wireReturning && w.at != 0 && l.now >= w.at:
		w.returning(l, s)
	}
}

// room sets what the program may carry, and says whether that is worth it.
func (w *wiring) room(s *Session) bool {
	var room [2]int64
	for i := range s.dirs {
		d := &s.dirs[i]
		if room[i] = -1; d.max == 0 {
			continue
		}
		// The last byte is the sockets': that it was kept back tells that the
		// limit is reached.
		if room[i] = d.max - d.in - 1; room[i] < wireRoom {
			return false
		}
	}
	if w.pair != nil {
		w.pair.Room = room
	}
	return true
}

// roomLeft is what may still go across; negative is any number.
func (w *wiring) roomLeft(s *Session, v *wire.View) [2]int64 {
	room := [2]int64{-1, -1}
	for i := range s.dirs {
		if d := &s.dirs[i]; d.max > 0 && !d.ended() {
			room[i] = max(0, d.max-(w.base[i]+v.Crossed[i])-1)
		}
	}
	return room
}

// watch notes why the pair is for its sockets: packets come in parts, which only they can take, or a limit of bytes is
// reached but for a rest.
func (w *wiring) watch(s *Session, v *wire.View) {
	if v.Divided {
		w.back.why = WhyWireDivided
	}
	for i, left := range w.roomLeft(s, v) {
		f := &v.Flows[i]
		if left == 0 || left > 0 && f.BarMet != 0 && f.Beyond == 0 {
			w.back.why = WhyWireLimited
		}
	}
}

// takeBack begins to.
func (w *wiring) takeBack(l *loop, s *Session) {
	if err := w.pair.Bar(); err != nil {
		s.stopAll(l, Failed, fmt.Errorf("%w: %w", ErrTakeBack, err))
		return
	}
	w.holds(s, true)
	s.wired.Load().alone.Store(false)
	w.phase, w.at = wireReturning, l.now+wireSettle
	w.back.pause, w.back.askAt = wireBackFirst, w.at
}

// returning waits until all that went across is acknowledged, and has the
// sockets made.
func (w *wiring) returning(l *loop, s *Session) {
	if w.back.building {
		return
	}
	v, err := w.pair.Look()
	if err != nil {
		s.stopAll(l, Failed, fmt.Errorf("look up the spliced flow: %w", err))
		return
	}
	w.count(s, &v) // exact, if it rests
	if v.Resting() {
		w.back.building, w.at = true, 0
		w.pair.Return(func(fds [2]int, err error) {
			r := returned{fds, err}
			if !l.post(command{what: wireBack, s: s, back: &r}) {
				r.close()
			}
		})
		return
	}
	if w.back.by != 0 && l.now >= w.back.by {
		s.stopAll(l, Stopped, ErrStopped) // with a RST to both
		return
	}
	if l.now >= w.back.askAt {
		w.back.askAt = l.now + wireAsk
		for i := range s.dirs {
			w.pair.Ask(&v, i)
		}
	}
	w.at = l.now + w.back.pause
	w.back.pause = min(2*w.back.pause, wireBackMost)
}

// close resets both connections: the session has ended meanwhile.
func (r *returned) close() {
	if r.err != nil {
		return
	}
	for _, fd := range r.fds {
		_ = sys.Disconnect(fd)
		_ = sys.Close(fd)
	}
}

// hurry bounds a Stop.
func (w *wiring) hurry(l *loop) {
	if w.back.by == 0 {
		w.back.by = l.now + wireBackPatience + 4*w.pair.RTT()
	}
}

// wireBack: the sockets were made, or could not be.
func (s *Session) wireBack(l *loop, r *returned) {
	w := s.wire
	w.back.building = false
	if s.over || w.phase != wireReturning {
		r.close()
		return
	}
	switch {
	case errors.Is(r.err, wire.ErrMoved):
		w.at = l.now + wireBackFirst
		s.settle(l)
		return
	case errors.Is(r.err, syscall.EADDRNOTAVAIL) && w.mayBecomeFree(l):
		w.at = l.now + wireBackMost
		s.settle(l)
		return
	case r.err != nil:
		s.stopAll(l, Failed, fmt.Errorf("%w: %w", ErrTakeBack, r.err))
		return
	}
	w.phase, w.at, w.pair = wireOff, 0, nil
	w.stats.Returned = true
	if w.back.why != WhyNoBytes {
		w.stats.Refused = w.back.why
	}
	w.publish(s)
	s.wired.Store(nil)
	for i := range s.ends {
		d := &s.dirs[i]
		s.ends[i] = endpoint{session: s, fd: r.fds[i], slot: -1}
		d.in = d.out.Load()
		if !s.stopping {
			d.choice.view.Store(w.before[i])
		}
	}
	if err := s.resume(l); err != nil {
		s.stopAll(l, Failed, fmt.Errorf("%w: %w", ErrTakeBack, err))
		return
	}
	l.queue(s)
}

// mayBecomeFree says whether to go on waiting for addresses that another socket has:
// one that tries to connect, for which the kernel has chosen the port of a flow that it
// does not know of. It never will be connected: its peer knows the flow.
func (w *wiring) mayBecomeFree(l *loop) bool {
	if w.back.freeBy == 0 {
		w.back.freeBy = l.now + wirePortPatience
	}
	return l.now < w.back.freeBy && (w.back.by == 0 || l.now < w.back.by)
}

// resume joins sockets that were just made.
func (s *Session) resume(l *loop) error {
	for i := range s.ends {
		e := &s.ends[i]
		if err := e.prepare(); err != nil {
			return err
		}
		e.blocking, e.inline = false, true // nobody has known them otherwise
		if err := sys.SetTCP(e.fd, keepIdle, keepInterval, keepCount); err != nil {
			return err
		}
		s.setOptions(i)
	}
	if err := l.reactor.claim(s); err != nil {
		return err
	}
	for i := range s.ends {
		if err := l.add(&s.ends[i]); err != nil {
			return err
		}
	}
	return nil
}

// depart ends the session of a flow that goes on. One that would not is cut
// when the process ends: it stays.
func (w *wiring) depart(l *loop, s *Session) {
	if !w.pair.Kept() {
		w.back.leave = false
		return
	}
	w.phase, w.at = wireOff, 0
	w.stats.Left = true
	w.publish(s)
	w.pair.Leave()
	s.wired.Store(nil)
	s.stopAll(l, Stopped, ErrStopped)
}
