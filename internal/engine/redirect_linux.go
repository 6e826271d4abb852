package engine

import (
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine/flow"
	"github.com/spliced-io/spliced/internal/engine/sockmap"
	"github.com/spliced-io/spliced/internal/sys"
)

const (
	// enterLook is how long the loop looks, letting the processor go in between,
	// whether what was redirected has entered the drain's send queue: the kernel's
	// worker needs some microseconds. Where others want the processor, letting it
	// go once may take longer than that.
	enterLook = 100 * time.Microsecond
	// enterPause is the first pause after that; they double up to enterMost.
	enterPause = time.Millisecond
	enterMost  = 100 * time.Millisecond
	// deafAfter is how long a drain has to have had room before the loop is no
	// longer woken for it.
	deafAfter = 100 * time.Millisecond
	// missedPatience is how long bytes that were passed may be missing from a
	// source that has ended.
	missedPatience = time.Second
	// leavePatience bounds each step of a session that leaves the program. The
	// kernel's worker needs microseconds; a machine without a processor to spare
	// may need much more.
	leavePatience = 5 * time.Second
)

type redirectPhase uint8

const (
	redirectBefore  redirectPhase = iota // not tried yet
	redirectOn                           // in the maps
	redirectClosing                      // nothing is redirected any more; the sources are to leave
	redirectLeaving                      // the program sees nothing more; what it has had is delivered
	redirectOff                          // not in the maps
)

// A redirection is a session's way through the engine sockmap. Its loop owns
// it.
type redirection struct {
	plane *sockmap.Plane // held while there is a pair
	pair  *sockmap.Pair
	phase redirectPhase
	at    time.Duration // loop clock: the next look; 0 is none
	pause time.Duration

	since  time.Duration // loop clock: of the step of leaving
	broken bool          // bytes are not all accounted for
	// A moment on two clocks, for anybody.
	epoch time.Time
	mono  time.Duration
}

func redirectFor(k Kind) *redirection {
	if k != Sockmap {
		return nil
	}
	return &redirection{epoch: time.Now(), mono: time.Duration(sys.Monotonic())}
}

// refuse leaves the session to the other engines, which say why.
func (r *redirection) refuse(s *Session, why sockmap.Refusal) {
	r.phase, r.at = redirectOff, 0
	for i := range s.dirs {
		s.dirs[i].choice.because = WhySockmapNotTCP + Why(why-sockmap.NotTCP)
	}
}

// begin does what comes before the directions' turn.
func (r *redirection) begin(l *loop, s *Session) {
	switch r.phase {
	case redirectBefore:
		if s.stopping {
			return // a session that is stopped before its first turn never enters
		}
		r.enter(l, s)
	case redirectOn:
		if s.stopping {
			r.leave(l, s)
			return
		}
		for i := range s.dirs {
			if lane := s.dirs[i].lane; lane != nil && lane.NearLimit() {
				r.withdraw(l, s, sockmap.Limited)
				return
			}
		}
	case redirectClosing:
		r.leave(l, s)
	}
}

// enter puts the pair into the maps.
func (r *redirection) enter(l *loop, s *Session) {
	if s.limits.braked() {
		r.refuse(s, sockmap.Braked)
		return
	}
	var sockets [2]sockmap.Socket
	var first, limit [2]int64
	for i := range s.ends {
		e, d := &s.ends[i], &s.dirs[i]
		if e.err != nil {
			r.refuse(s, sockmap.Closing)
			return
		}
		if e.cookie == 0 { // accepted or connected by the loop
			var err error
			if e.cookie, err = sys.Cookie(e.fd); err != nil {
				r.refuse(s, sockmap.Broken)
				return
			}
		}
		sockets[i] = sockmap.Socket{FD: e.fd, Cookie: e.cookie}
		first[i], limit[i] = int64(len(d.first)), d.max
	}
	plane, err := l.reactor.sockmap.hold(l.reactor.SockmapPairs)
	if err != nil {
		r.refuse(s, sockmap.Broken) // it was possible when the session was started
		return
	}
	// The program redirects before Enter returns: who has received a byte finds it
	// counted.
	for i := range s.dirs {
		s.dirs[i].laneMu.Lock()
	}
	pair, why, _ := plane.Enter(sockets, first, limit)
	for i := range s.dirs {
		if pair != nil {
			s.dirs[i].lane = pair.Lane(i)
		}
		s.dirs[i].laneMu.Unlock()
	}
	if pair == nil {
		l.reactor.sockmap.release()
		r.refuse(s, why)
		return
	}
	r.plane, r.pair, r.phase, r.pause = plane, pair, redirectOn, enterPause
	for i := range s.dirs {
		s.ends[i].readable = true // what was there before the program wants a kick
	}
	if why != 0 {
		r.withdraw(l, s, why)
	}
}

func (s *Session) complain(err error) {
	for i := range s.dirs {
		s.dirs[i].complain(err)
	}
}

// complain makes the end of a direction a failure.
func (d *direction) complain(err error) {
	d.err = err
	d.state.Store(uint32(Failed))
}

// lost ends a session whose bytes are not all accounted for: with a reset to
// both sides, lest it should look whole.
func (r *redirection) lost(l *loop, s *Session, err error) {
	r.broken = true
	for i := range s.ends {
		s.ends[i].reset()
	}
	s.stopAll(l, Failed, err)
}

// entered says whether what was redirected in d is in the drain's send queue.
// If not, the session comes back later, unless the drain takes nothing any more: the worker
// that sends to it has given up then.
func (r *redirection) entered(l *loop, s *Session, d *direction) bool {
	for begin := l.reactor.clock(); ; sys.Yield() {
		ok, err := d.lane.Entered()
		if err != nil {
			r.lost(l, s, err)
			return false
		}
		if ok {
			r.pause = enterPause
			return true
		}
		if l.reactor.clock()-begin > enterLook {
			break
		}
	}
	if err := d.dst.dead(); err != nil {
		s.drainFailed(l, d, err)
		return false
	}
	r.wait(l)
	return false
}

func (r *redirection) wait(l *loop) {
	r.at = l.now + r.pause
	r.pause = min(2*r.pause, enterMost)
}

// missed comes back to a direction whose source has ended, while n bytes that
// were passed are still missing. It gives up after a while in which none has come
// and nothing was in front of them. Of a source that was reset they may have been behind
// what the worker could not send to it: they are lost with it.
func (r *redirection) missed(l *loop, s *Session, d *direction, n int) bool {
	if d.missing == 0 || d.src.err == nil && s.opposite(d).onTheWay() {
		d.missing = l.now
	}
	switch {
	case l.now-d.missing <= missedPatience:
		r.wait(l)
	case d.src.err != nil && broken(d.src.err):
		r.broken = true
		s.sourceEnded(l, d)
	default:
		r.lost(l, s, errPassed(n))
	}
	return true
}

// expire does what is due.
func (r *redirection) expire(l *loop, s *Session) {
	if r.at != 0 && l.now >= r.at {
		r.at = 0
		l.queue(s)
	}
	if r.pair != nil {
		r.moved(l, s)
	}
}

// moved brings up to date when a byte last moved, of a pair in the maps.
func (r *redirection) moved(l *loop, s *Session) {
	for i := range s.dirs {
		moved := s.dirs[i].lane.Moved()
		if moved == 0 {
			continue
		}
		at := max(s.startedAt, l.reactor.clock()-(time.Duration(sys.Monotonic())-moved))
		s.active = max(s.active, at)
		s.progress.Store(max(s.progress.Load(), int64(at)))
	}
}

// onTheWay says whether the kernel's worker has yet to hand over what was
// redirected: such a session is not idle.
func (r *redirection) onTheWay(l *loop, s *Session) bool {
	if r == nil || r.pair == nil {
		return false
	}
	for i := range s.dirs {
		if d := &s.dirs[i]; !d.ended() && d.onTheWay() {
			s.active = l.now
			return true
		}
	}
	return false
}

// onTheWay says whether the kernel's worker has yet to hand over what was
// redirected.
func (d *direction) onTheWay() bool {
	ok, err := d.lane.Entered()
	return err == nil && !ok
}

// unlane takes the direction from its lane, whose count it keeps.
func (d *direction) unlane() {
	d.laneMu.Lock()
	defer d.laneMu.Unlock()
	n := d.lane.Redirected()
	d.redirected += n
	d.in += n
	d.choice.view.Store(uint32(Sockmap)<<8 | uint32(WhyRedirected))
	d.over = false // it is seen again
	d.lane = nil
}

// runRedirected is run for a direction in the maps: the program moves bytes
// while the drain has room, and passes the others, which are moved here.
//
// Invariant: what was passed is only taken when all that was redirected before
// it has entered the drain's send queue, and nothing is redirected before all
// that was passed is forwarded.
func (d *direction) runRedirected(l *loop, s *Session) (again bool) {
	r := s.redirect
	if r.phase == redirectClosing {
		return false // what was passed is being taken, to be delivered then
	}
	for budget := quantum; !d.ended(); {
		if err := d.lane.Fault(); err != nil {
			r.lost(l, s, err)
			return false
		}
		waiting := d.lane.Waiting()
		if d.held()+waiting > 0 || d.over {
			if !r.entered(l, s, d) {
				return false
			}
		}
		switch {
		case d.held() > 0:
			if !d.dst.writable {
				return false
			}
		case waiting > 0:
		case d.over:
			s.sourceEnded(l, d)
			return false
		case r.phase == redirectLeaving:
			return false
		case !d.src.readable:
			if at := d.dst.fullAt; at == 0 || l.now-at > deafAfter {
				l.deafen(d.dst)
			}
			return false
		}
		if budget <= 0 {
			return true
		}
		d.moving.Store(true)
		step := d.stepRedirected(l, waiting)
		d.note(l, s, step, false)
		if step.In > 0 {
			d.missing = 0
		}
		budget -= step.Out
		switch step.Status {
		case flow.SourceEmpty:
			d.src.readable = false
			if waiting > 0 { // it is behind what the worker has to send to the source
				r.wait(l)
				return false
			}
		case flow.DrainFull:
			if err := l.full(d.dst); err != nil {
				r.lost(l, s, err)
				return false
			}
		case flow.SourceEnd, flow.SourceFailed:
			if step.Err != nil {
				d.src.fail(step.Err)
			}
			d.over, d.src.readable = true, false
			if waiting > 0 && r.missed(l, s, d, waiting) {
				return false
			}
		case flow.DrainFailed:
			s.drainFailed(l, d, step.Err)
		}
	}
	return false
}

// stepRedirected makes one move of what was passed; or, when nothing is, looks
// whether the source has ended, which also has the program see what came before
// it was there.
func (d *direction) stepRedirected(l *loop, waiting int) (step flow.Step) {
	switch {
	case len(d.first) > 0:
		step = d.deliverFirst()
		d.lane.Forwarded(step.Out)
		return step
	case d.copy.Held() > 0 || waiting > 0:
		step = d.copy.Step(&l.buffers, d.src.fd, d.dst.fd, waiting)
		d.lane.Took(step.In)
		d.lane.Forwarded(step.Out)
		return step
	}
	var one [1]byte
	n, err := sys.Peek(d.src.fd, one[:])
	switch {
	case err == syscall.EAGAIN:
		if d.lane.Waiting() == 0 {
			step.Status = flow.SourceEmpty
		}
	case err != nil:
		step.Status, step.Err = flow.SourceFailed, err
	case n == 0:
		step.Status = flow.SourceEnd
	}
	return step
}
