package engine

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine/flow"
	"github.com/spliced-io/spliced/internal/engine/sockmap"
	"github.com/spliced-io/spliced/internal/sys"
)

const (
	// enterLooks is how often the loop looks, letting the processor go in
	// between, whether what was redirected has entered the drain's send queue:
	// the kernel's worker needs some microseconds.
	enterLooks = 20
	// enterPause is the first pause after that; they double up to enterMost.
	enterPause = time.Millisecond
	enterMost  = 100 * time.Millisecond
	// enterPatience bounds the wait of a session that ends and gives its sockets
	// back.
	enterPatience = time.Second
	// holdBytes of a source are held back for the moment in which it leaves the
	// program.
	holdBytes = 1 << 20
	// windowClosed and windowOpen are the windows of a source that leaves the
	// program, and afterwards.
	windowClosed = 4 << 10
	windowOpen   = 1 << 30
	// collectBytes is the most that is read at once of what was passed.
	collectBytes = 4 << 20
)

type redirectPhase uint8

const (
	redirectBefore  redirectPhase = iota // not tried yet
	redirectOn                           // in the maps
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

	missing time.Duration // loop clock: since when bytes that were passed are missing
	// A moment on two clocks, for anybody.
	epoch time.Time
	mono  time.Duration
}

// sockmapPlane is the reactor's plane: open while sessions hold it, and closed
// with the last event loop.
type sockmapPlane struct {
	mu    sync.Mutex
	plane *sockmap.Plane
	users int
}

// OpenSockmap makes sure that the program is loaded. The error says what is
// missing.
func (r *Reactor) OpenSockmap() error {
	_, err := r.sockmap.hold(r.SockmapPairs)
	if err == nil {
		r.sockmap.release()
	}
	return err
}

func (p *sockmapPlane) hold(pairs uint32) (*sockmap.Plane, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.plane == nil {
		plane, err := sockmap.Open(pairs)
		if err != nil {
			return nil, err
		}
		p.plane = plane
	}
	p.users++
	return p.plane, nil
}

func (p *sockmapPlane) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users--
}

// trim closes a plane that nobody holds.
func (p *sockmapPlane) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users == 0 && p.plane != nil {
		p.plane.Close()
		p.plane = nil
	}
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
	pair, why, _ := plane.Enter(sockets, first, limit)
	if pair == nil {
		l.reactor.sockmap.release()
		r.refuse(s, why)
		return
	}
	r.plane, r.pair, r.phase, r.pause = plane, pair, redirectOn, enterPause
	for i := range s.dirs {
		s.dirs[i].take(pair.Lane(i))
		s.ends[i].readable = true // what was there before the program wants a kick
	}
	if why != 0 {
		r.withdraw(l, s, why)
	}
}

// withdraw leaves for good, for a reason.
func (r *redirection) withdraw(l *loop, s *Session, why sockmap.Refusal) {
	r.leave(l, s)
	if r.phase == redirectLeaving {
		for i := range s.dirs {
			s.dirs[i].choice.because = WhySockmapNotTCP + Why(why-sockmap.NotTCP)
		}
	}
}

// leave ends the program's part.
func (r *redirection) leave(l *loop, s *Session) {
	r.phase = redirectLeaving
	if err := r.collect(l, s); err != nil {
		r.lost(l, s, err)
	}
}

// collect takes what was passed and has the sockets leave the program.
func (r *redirection) collect(l *loop, s *Session) error {
	r.pair.Close()
	deadline := time.Now().Add(enterPatience)
	for i := range s.dirs {
		// A sender that is faster than the reads below runs out of window.
		fd := s.ends[i].fd
		_ = sys.FixReceiveBuffer(fd, true)
		_ = sys.SetWindowClamp(fd, windowClosed)
		defer func() {
			_ = sys.SetWindowClamp(fd, windowOpen)
			_ = sys.FixReceiveBuffer(fd, false)
		}()
		for {
			left, err := r.out(l, s, i, deadline)
			if err != nil {
				return err
			}
			if left {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("a socket does not leave the program: %w", syscall.EBUSY)
			}
		}
	}
	return nil
}

// out takes what was passed in a direction and has its source leave the
// program, for which the kernel is told to leave segments where they are
// (SO_RCVLOWAT).
func (r *redirection) out(l *loop, s *Session, i int, deadline time.Time) (bool, error) {
	d := &s.dirs[i]
	if !d.lane.Sourced() {
		return true, nil
	}
	if err := d.collect(l, deadline); err != nil {
		return false, err
	}
	if low, err := sys.ReceiveLow(d.src.fd); err == nil {
		_ = sys.SetReceiveLow(d.src.fd, holdBytes) // of a dead socket: then it is no matter
		defer func() { _ = sys.SetReceiveLow(d.src.fd, low) }()
	}
	return r.pair.Leave(i)
}

// collect takes what was passed. It is delivered first, or returned if the
// direction has ended.
func (d *direction) collect(l *loop, deadline time.Time) error {
	if d.lane.Waiting() == 0 {
		return nil
	}
	rest := &d.undelivered
	if !d.ended() {
		d.first = slices.Concat(d.first, d.copy.Reclaim(&l.buffers))
		rest = &d.first
	}
	for d.lane.Waiting() > 0 {
		b := slices.Grow(*rest, min(d.lane.Waiting(), collectBytes))
		n, err := sys.Recv(d.src.fd, b[len(b):len(b)+min(d.lane.Waiting(), cap(b)-len(b))])
		if n > 0 {
			d.lane.Took(n)
			d.in += int64(n)
			*rest = b[:len(b)+n]
			continue
		}
		if err != nil && err != syscall.EAGAIN {
			d.src.fail(err)
		}
		if time.Now().After(deadline) {
			return errPassed(d.lane.Waiting())
		}
		time.Sleep(100 * time.Microsecond) // it is behind what the worker has to send
	}
	return nil
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
	if err := r.forget(l, s, true); err != nil {
		r.lost(l, s, err)
		return
	}
	for i := range s.ends {
		s.ends[i].readable = true
	}
	l.queue(s)
}

// forget takes the pair out of the maps. With audit, it says if bytes are lost.
func (r *redirection) forget(l *loop, s *Session, audit bool) error {
	for i := range s.dirs {
		s.dirs[i].take(nil)
	}
	err := r.pair.Forget(audit)
	r.pair, r.plane, r.at, r.phase = nil, nil, 0, redirectOff
	l.reactor.sockmap.release()
	return err
}

// settle waits a while for what was redirected to enter the send queues. Sockets
// that are given back must not lose it with the maps.
func (r *redirection) settle(s *Session) {
	deadline := time.Now().Add(enterPatience)
	for i := range s.dirs {
		d := &s.dirs[i]
		for d.dst.err == nil && d.reason() != ResetByDrain {
			if ok, err := d.lane.Entered(); ok || err != nil {
				break
			}
			if time.Now().After(deadline) {
				d.complain(fmt.Errorf("bytes remain in the kernel's redirect queue: %w", syscall.EIO))
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
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

// end is called at the session's end, before its sockets are closed or given
// back.
func (r *redirection) end(l *loop, s *Session, kept bool) {
	if r.pair == nil {
		return
	}
	if !kept {
		r.pair.Cut() // before the counts are taken for good
	} else if err := r.collect(l, s); err != nil {
		s.complain(err)
	} else {
		r.settle(s)
	}
	if err := r.forget(l, s, kept); err != nil {
		s.complain(err)
	}
}

// lost ends a session whose bytes are not all accounted for: with a reset to
// both sides, lest it should look whole.
func (r *redirection) lost(l *loop, s *Session, err error) {
	for i := range s.ends {
		s.ends[i].reset()
	}
	s.stopAll(l, Failed, err)
}

// entered says whether what was redirected in d is in the drain's send queue.
// If not, the session comes back later.
func (r *redirection) entered(l *loop, s *Session, d *direction) bool {
	for i := range enterLooks {
		ok, err := d.lane.Entered()
		if err != nil {
			r.lost(l, s, err)
			return false
		}
		if ok {
			r.pause = enterPause
			return true
		}
		if i > 0 {
			sys.Yield()
		}
	}
	r.wait(l)
	return false
}

func (r *redirection) wait(l *loop) {
	r.at = l.now + r.pause
	r.pause = min(2*r.pause, enterMost)
}

// missed comes back to a direction whose source has ended, while bytes that were
// passed are still missing. It gives up after a while.
func (r *redirection) missed(l *loop, s *Session, n int) bool {
	if r.missing == 0 {
		r.missing = l.now
	}
	if l.now-r.missing > enterPatience {
		r.lost(l, s, errPassed(n))
	} else {
		r.wait(l)
	}
	return true
}

// expire does what is due, and brings up to date when a byte last moved.
func (r *redirection) expire(l *loop, s *Session) {
	if r.at != 0 && l.now >= r.at {
		r.at = 0
		l.queue(s)
	}
	if r.pair == nil {
		return
	}
	for i := range s.dirs {
		moved := s.dirs[i].lane.Moved()
		if moved == 0 {
			continue
		}
		if at := l.now - (time.Duration(sys.Monotonic()) - moved); at > s.active {
			s.active = at
			s.progress.Store(int64(at))
		}
	}
}

// take joins the direction to a lane, or takes it from its lane, whose count it
// keeps.
func (d *direction) take(lane *sockmap.Lane) {
	d.laneMu.Lock()
	defer d.laneMu.Unlock()
	if lane == nil {
		n := d.lane.Redirected()
		d.redirected += n
		d.in += n
		d.choice.view.Store(uint32(Sockmap)<<8 | uint32(WhyRedirected))
		d.over = false // it is seen again
	}
	d.lane = lane
}

// runRedirected is run for a direction in the maps: the program moves bytes
// while the drain has room, and passes the others, which are moved here.
//
// Invariant: what was passed is only taken when all that was redirected before
// it has entered the drain's send queue, and nothing is redirected before all
// that was passed is forwarded.
func (d *direction) runRedirected(l *loop, s *Session) (again bool) {
	r := s.redirect
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
		case r.phase == redirectLeaving || !d.src.readable:
			return false
		}
		if budget <= 0 {
			return true
		}
		d.moving.Store(true)
		step := d.stepRedirected(l, waiting)
		d.note(l, s, step, false)
		budget -= step.Out
		switch step.Status {
		case flow.SourceEmpty:
			d.src.readable = false
			if waiting > 0 { // it is behind what the worker has to send to the source
				r.wait(l)
				return false
			}
		case flow.DrainFull:
			d.dst.writable = false
		case flow.SourceEnd, flow.SourceFailed:
			if step.Err != nil {
				d.src.fail(step.Err)
			}
			d.over, d.src.readable = true, false
			if waiting > 0 && r.missed(l, s, waiting) {
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
