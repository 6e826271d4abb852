package engine

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine/sockmap"
	"github.com/spliced-io/spliced/internal/sys"
)

// How a session leaves the program, without a byte lost and without the loop
// waiting for anything:
//
//	on ─▶ closing: nothing is redirected any more. What was passed is taken, and
//	      each source leaves at a moment when nothing of it is left
//	   ─▶ leaving: the program sees nothing more. What was redirected before
//	      enters the drains' send queues
//	   ─▶ off: the sockets are in no map
//
// Each step is tried at once and, where it has to wait for the kernel's worker,
// again a little later.

// leaveTries is how often in one turn a source is asked to leave that was
// passed something meanwhile.
const leaveTries = 3

// withdraw leaves for good, for a reason.
func (r *redirection) withdraw(l *loop, s *Session, why sockmap.Refusal) {
	for i := range s.dirs {
		s.dirs[i].choice.because = WhySockmapNotTCP + Why(why-sockmap.NotTCP)
	}
	r.leave(l, s)
}

// leave begins to leave, or goes on with it.
func (r *redirection) leave(l *loop, s *Session) {
	if err := r.out(l, s); err != nil {
		r.lost(l, s, err)
	}
}

// out takes what was passed and has the sources leave the program. Once they
// have, the phase is redirectLeaving.
func (r *redirection) out(l *loop, s *Session) error {
	if r.phase == redirectOn {
		r.phase, r.since, r.pause = redirectClosing, l.now, enterPause
		r.pair.Close()
	}
	for i := range s.dirs {
		left, err := r.outOf(l, s, i)
		if err == nil && !left && l.now-r.since > leavePatience {
			err = errStays(s.dirs[i].lane.Waiting())
		}
		if err != nil {
			return err
		}
		if !left {
			r.wait(l)
			return nil
		}
	}
	r.phase, r.since, r.pause = redirectLeaving, l.now, enterPause
	return nil
}

func errStays(waiting int) error {
	if waiting > 0 {
		return errPassed(waiting)
	}
	return fmt.Errorf("a socket does not leave the program: %w", syscall.EBUSY)
}

// outOf takes what was passed in a direction and has its source leave the
// program.
func (r *redirection) outOf(l *loop, s *Session, i int) (bool, error) {
	d := &s.dirs[i]
	if !d.lane.Sourced() {
		return true, nil
	}
	d.lane.Still(true)
	defer d.lane.Still(false)
	for range leaveTries {
		if !d.collect(l) {
			continue
		}
		if left, err := r.pair.Leave(i); left || err != nil {
			return left, err
		}
	}
	return false, nil
}

// collect takes what was passed so far, and says whether no more was passed
// meanwhile. It is delivered first, or returned if the direction has ended.
func (d *direction) collect(l *loop) bool {
	rest := &d.undelivered
	if !d.ended() {
		if d.copy.Held() > 0 {
			d.first = append(d.first, d.copy.Reclaim(&l.buffers)...)
		}
		rest = &d.first
	}
	for left := d.lane.Waiting(); left > 0; {
		b := slices.Grow(*rest, left)
		n, err := sys.Recv(d.src.fd, b[len(b):len(b)+left])
		if n <= 0 { // it is behind what the worker has to send, or it never comes
			if err != nil && err != syscall.EAGAIN {
				d.src.fail(err)
			}
			return false
		}
		d.lane.Took(n)
		d.in += int64(n)
		left -= n
		*rest = b[:len(b)+n]
	}
	return d.lane.Waiting() == 0
}

// errPassed says that bytes are not to be had that the program has passed: a
// stranger has read from the socket.
func errPassed(n int) error {
	return fmt.Errorf("%d bytes that were passed are gone from the socket: %w", n, syscall.EIO)
}

// left has the sockets leave the maps once what was redirected has entered the
// drains' send queues.
func (r *redirection) left(l *loop, s *Session) {
	if r.phase != redirectLeaving || s.ended() {
		return
	}
	for i := range s.dirs {
		d := &s.dirs[i]
		if d.ended() {
			continue
		}
		if !r.entered(l, s, d) {
			return
		}
	}
	err := r.forget(l, s, true)
	for i := range s.ends {
		e := &s.ends[i]
		// The kernel tells nobody what happens to a socket in the moment in which it
		// gets its own functions back.
		e.readable, e.writable = true, true
		err = errors.Join(err, l.hear(e))
	}
	if err != nil {
		r.lost(l, s, err)
		return
	}
	l.queue(s)
}

// forget takes the pair out of the maps. With audit, it says if bytes are lost.
func (r *redirection) forget(l *loop, s *Session, audit bool) error {
	r.moved(l, s)
	for i := range s.dirs {
		s.dirs[i].unlane()
	}
	err := r.pair.Forget(audit)
	r.pair, r.plane, r.at, r.phase = nil, nil, 0, redirectOff
	l.reactor.sockmap.release()
	return err
}

// entrusted says whether what was redirected is in the drains' send queues, of a
// session that has ended and whose sockets are about to be shut down. If not,
// the session comes back later.
func (r *redirection) entrusted(l *loop, s *Session) bool {
	if r == nil || r.pair == nil || r.broken {
		return true
	}
	if r.phase == redirectOn {
		r.phase, r.since, r.pause = redirectClosing, l.now, enterPause
		r.pair.Close()
	}
	return r.delivered(l, s)
}

// delivered waits, though not for ever, until the drains of a session that has
// ended have what was redirected to them.
func (r *redirection) delivered(l *loop, s *Session) bool {
	for i := range s.dirs {
		d := &s.dirs[i]
		if d.dst.err != nil || d.reason() == ResetByDrain {
			continue // nothing enters any more
		}
		switch ok, err := d.lane.Entered(); {
		case ok, d.dst.dead() != nil:
		case err == nil && l.now-r.since <= leavePatience:
			r.wait(l)
			return false
		default:
			d.complain(fmt.Errorf("bytes remain in the kernel's redirect queue: %w", syscall.EIO))
			if s.own && !s.keeps() {
				d.dst.reset() // lest it should look whole
			}
		}
	}
	return true
}

// done takes the sockets of a session that has ended out of the maps, before
// they are closed or given back, and says whether they are out. If not, the
// session comes back later.
func (r *redirection) done(l *loop, s *Session) bool {
	if r == nil || r.pair == nil {
		return true
	}
	if r.broken || s.own && !s.keeps() { // nobody gets them
		r.pair.Cut() // before the counts are taken for good
		_ = r.forget(l, s, false)
		return true
	}
	if r.phase != redirectLeaving {
		if err := r.out(l, s); err != nil {
			s.complain(err)
			_ = r.forget(l, s, false)
			return true
		}
		if r.phase != redirectLeaving {
			return false
		}
	}
	if !r.delivered(l, s) {
		return false
	}
	if err := r.forget(l, s, true); err != nil {
		s.complain(err)
	}
	return true
}
