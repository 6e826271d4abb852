package engine

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine/copy"
	"github.com/spliced-io/spliced/internal/engine/flow"
	"github.com/spliced-io/spliced/internal/engine/sockmap"
	"github.com/spliced-io/spliced/internal/engine/splice"
	"github.com/spliced-io/spliced/internal/sys"
)

// quantum is how many bytes a direction may move before it lets the others
// have their turn.
const quantum = 1 << 20

// A direction carries bytes from one endpoint to the other. Its event loop
// owns it; the atomics can be read by anybody.
//
// Invariant: at most one of first, copy and splice holds bytes, or first and
// nothing else has been read yet. What is held is delivered before anything
// more is read, so order needs no other care.
type direction struct {
	src, dst *endpoint
	out      atomic.Int64  // bytes the drain's socket has accepted from here
	spliced  atomic.Int64  // of these, moved by splice(2)
	moving   atomic.Bool   // a system call may have delivered what out lacks
	state    atomic.Uint32 // Reason
	choice   choice

	laneMu     sync.Mutex    // for lane and redirected
	lane       *sockmap.Lane // nil: not in the maps of the engine sockmap
	redirected int64         // by lanes of the past
	missing    time.Duration // loop clock: since when bytes that a lane has passed are missing; 0 is not

	in     int64         // bytes taken from the source, prefetched ones included
	max    int64         // limit of in; 0 is none
	fed    bool          // splice(2) has taken bytes since the last event
	brake  *Brake        // nil: no limit of bandwidth
	brakes time.Duration // loop clock: nothing is read before; 0 is now
	over   bool          // the source has ended; not everything before that has entered the drain yet
	first  []byte
	copy   copy.Mover
	splice splice.Mover

	err         error
	undelivered []byte
}

func (d *direction) reason() Reason { return Reason(d.state.Load()) }

func (d *direction) ended() bool { return d.reason() != Running }

// held counts the bytes that have left the source and are not with the drain.
func (d *direction) held() int { return len(d.first) + d.copy.Held() + d.splice.Held() }

// braked says whether bandwidth is what it lacks. Else a turn's bytes are held
// for it, until they are read or rest gives them back.
func (d *direction) braked(l *loop, s *Session) bool {
	if d.brake == nil {
		return false
	}
	now := l.reactor.clock()
	if d.brakes != 0 {
		if now < d.brakes {
			return true
		}
		d.brakes = 0
		return false
	}
	if wait := d.brake.Next(); wait > 0 {
		d.brakes = now + wait
		s.active = max(s.active, d.brakes) // the waiting is not the peers'
		return true
	}
	return false
}

// rest: nothing is going to be read for now.
func (d *direction) rest() {
	if d.brake != nil && d.brakes == 0 {
		d.brake.Rest()
	}
}

// want is how many bytes may be taken from the source at once.
func (d *direction) want() int {
	if d.brake == nil {
		return d.left()
	}
	return min(d.brake.Given(), d.left())
}

// left is how many bytes may still be taken from the source. It is negative if
// an engine has let more across than it was allowed: finish says so.
func (d *direction) left() int {
	if d.max == 0 {
		return math.MaxInt
	}
	return int(d.max - d.in)
}

// run moves bytes until the source is empty, the drain is full, the direction
// has ended, or its quantum is used up: then it returns true.
func (d *direction) run(l *loop, s *Session) (again bool) {
	if d.lane != nil {
		return d.runRedirected(l, s)
	}
	d.fed = false
	for budget := quantum; !d.ended(); {
		switch {
		case d.held() > 0:
			if !d.dst.writable {
				d.rest()
				return false
			}
		case s.stopping && !s.wire.draining():
			d.finish(l, Stopped, ErrStopped)
			return false
		case d.left() <= 0:
			d.finish(l, Max, nil)
			return false
		case !d.src.readable:
			d.rest()
			return false
		case d.braked(l, s):
			return false
		}
		if budget <= 0 {
			return true
		}
		d.moving.Store(true)
		step, spliced := d.step(l)
		d.note(l, s, step, spliced)
		budget -= step.Out
		switch step.Status {
		case flow.More:
		case flow.SourceShort:
			d.choice.pause()
			if d.src.exact && !d.src.hangup {
				d.src.readable = false
			}
		case flow.SourceEmpty:
			d.choice.pause()
			d.src.readable = false
		case flow.DrainFull:
			d.dst.writable = false
		case flow.SourceEnd:
			s.sourceEnded(l, d)
		case flow.SourceFailed:
			d.src.fail(step.Err)
			s.sourceEnded(l, d)
		case flow.DrainFailed:
			s.drainFailed(l, d, step.Err)
		}
	}
	return false
}

// note counts what a step has moved, and ends moving.
func (d *direction) note(l *loop, s *Session, step flow.Step, spliced bool) {
	d.in += int64(step.In)
	if d.brake != nil {
		d.brake.Read(step.In)
	}
	if step.Out > 0 {
		d.out.Store(d.out.Load() + int64(step.Out))
		if spliced {
			d.spliced.Store(d.spliced.Load() + int64(step.Out))
		}
		s.moved(l)
	}
	d.moving.Store(false)
	l.moved += step.Out
}

// step makes one move, by the means that the choice names, and says whether
// that was splice(2).
func (d *direction) step(l *loop) (step flow.Step, spliced bool) {
	if len(d.first) > 0 {
		return d.deliverFirst(), false
	}
	if d.splice.Held() > 0 || d.copy.Held() == 0 && d.choice.streaming {
		step = d.splice.Step(&l.reactor.pipes, d.src.fd, d.dst.fd, d.want())
		switch step.Status {
		case flow.SourceEmpty, flow.SourceEnd:
			// Believed only when recv(2) says the same: see package splice. But a
			// plain TCP socket that has just fed the pipe is one that splice(2)
			// can see into, and what it can't see yet makes an edge.
			if d.fed && d.src.exact && !d.src.hangup && step.Status == flow.SourceEmpty {
				return step, true
			}
		case flow.SourceFailed:
			// splice(2) has taken the socket's error; recv(2) still finds what came
			// before it, if that is where splice(2) does not look.
			d.src.fail(step.Err)
		case flow.NoPipe:
			d.choice.noPipe()
		case flow.Refused:
			d.choice.refused()
			if d.splice.Held() > 0 {
				var err error
				if d.first, err = d.splice.Reclaim(&l.reactor.pipes); err != nil {
					step.Status, step.Err = flow.DrainFailed, err
					return step, true
				}
				step.Status = flow.More
				return step, true
			}
		default:
			d.fed = d.fed || step.In > 0
			d.choice.spliced(step.In)
			return step, true
		}
	}
	step = d.copy.Step(&l.buffers, d.src.fd, d.dst.fd, d.want())
	d.choice.copied(step.In)
	if d.src.err != nil && step.Status == flow.SourceEmpty {
		step.Status = flow.SourceEnd // no byte comes after an error
	}
	return step, false
}

func (d *direction) deliverFirst() (step flow.Step) {
	n, err := sys.Send(d.dst.fd, d.first)
	if err == nil {
		step.Out = n
		if d.first = d.first[n:]; len(d.first) == 0 {
			d.first = nil
		}
		return step
	}
	if err == syscall.EAGAIN {
		step.Status = flow.DrainFull
		return step
	}
	step.Status, step.Err = flow.DrainFailed, err
	return step
}

// reclaim takes back what is held: the drain can't have it.
func (d *direction) reclaim(l *loop) {
	piped, err := d.splice.Reclaim(&l.reactor.pipes)
	if err != nil && d.err == nil {
		d.err = err
	}
	d.undelivered = slices.Concat(d.first, d.copy.Reclaim(&l.buffers), piped, d.undelivered)
	d.first = nil
}

// finish ends the direction. Whatever the reason, more bytes than its limit are
// an error: they can't be taken back, but the user is told.
func (d *direction) finish(l *loop, r Reason, err error) {
	if d.ended() {
		return
	}
	if n, _, _ := d.delivered(); d.max > 0 && n > d.max {
		r, err = Failed, &overshootError{n, d.max}
	}
	d.reclaim(l)
	d.brakes = 0
	d.rest()
	if d.err == nil {
		d.err = err
	}
	d.state.Store(uint32(r))
}
