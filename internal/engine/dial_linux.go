package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// A dial connects a session's b side: the loop tries the targets in turn, and some of
// them beside each other. The last that was begun is the session's b; the ones from
// before that may still answer are its rivals.
type dial struct {
	acceptor *Acceptor
	plan     *Plan
	targets  []Target
	handler  Handler
	dialing  func(local netip.AddrPort)
	trying   func(target int) bool

	next     int
	rivals   []*rival
	at       time.Duration // loop clock: the current attempt has failed, or is made again
	by       time.Duration // loop clock: when the current target, and its rivals, have failed; 0 before it is tried
	raceAt   time.Duration // loop clock: the next target is begun beside the current one then; 0 is not
	deadline time.Duration // loop clock: of waiting for descriptors
	starved  bool          // is counted as such
	pause    time.Duration // the last one, for the current target
	watchAt  time.Duration // loop clock: the client is watched from then on; 0 is, or is not to be
	leftAt   time.Duration // loop clock: then a client that has said goodbye, and nothing else, has left; 0 has not
	errs     []error       // why targets have failed, by their numbers; nil: none has
}

// A rival is an attempt that others have been begun beside.
type rival struct {
	endpoint
	target int
}

// Keep-alive probes, in seconds: a peer that vanished is noticed after 2
// minutes and 4 × 15 s without a sign of life. Go's default asks every 15 s:
// with 10,000 idle pairs that is 1,300 packets a second, and their answers, for
// nothing.
const (
	keepIdle     = 120
	keepInterval = 15
	keepCount    = 4

	// keepDelay is when a connection that was dialled is given the options, four
	// system calls that a short one can do without. The kernel counts from the
	// last sign of life all the same. Those accepted inherit theirs.
	keepDelay = keepIdle / 2 * time.Second
)

// The pauses after a lack of descriptors, or of room in a target's queue, double
// from shortageFirst to shortageMost for a listener, and to dialMost for the
// clients that were accepted.
const (
	shortageFirst = 5 * time.Millisecond
	shortageMost  = time.Second
	dialMost      = 100 * time.Millisecond
)

// A client that goes away while it waits is noticed. Most dials are over before
// that is worth an event.
const (
	watchAfter = 50 * time.Millisecond
	// goodbye is how long one that has sent a FIN and not a single byte may still
	// be answered: it may have come to listen only.
	goodbye = time.Second
)

func (d *dial) begin(l *loop, s *Session) {
	d.deadline = l.now + d.plan.Timeout
	d.watchAt = l.now + watchAfter
	d.try(l, s)
}

// try starts connecting to the next target, and fails the session after the
// last.
func (d *dial) try(l *loop, s *Session) {
	for d.next < len(d.targets) {
		if len(d.rivals) > 0 && !d.targets[d.next].Beside {
			break
		}
		if d.next > 0 && d.trying != nil && !d.trying(d.next) {
			d.pass()
			continue
		}
		if d.by == 0 {
			d.by = l.now + d.plan.Timeout
		}
		err := d.connect(l, s)
		if err == nil {
			d.starve(false, nil)
			d.at = d.by
			if d.next+1 < len(d.targets) && d.targets[d.next+1].Beside {
				d.raceAt = l.now + min(RaceDelay, d.plan.Timeout/2)
			}
			s.settle(l)
			return
		}
		if Shortage(err) && l.now < d.deadline && len(d.rivals) == 0 {
			d.starve(true, err)
			d.again(l, s)
			return
		}
		if errors.Is(err, syscall.EAGAIN) && l.now < d.by {
			d.again(l, s) // a unix listener whose queue is full; or a spliced flow has got the port
			return
		}
		d.failed(l, s, err)
	}
	d.starve(false, nil)
	if len(d.rivals) > 0 {
		d.at = d.by
		s.settle(l)
		return
	}
	d.giveUp(l, s, Failed, nil)
}

// race begins with the next target beside the current one.
func (d *dial) race(l *loop, s *Session) {
	e := &s.ends[1]
	r := &rival{endpoint: *e, target: d.next}
	l.slots[e.slot].e = &r.endpoint
	*e = endpoint{session: s, fd: -1, slot: -1}
	d.rivals = append(d.rivals, r)
	d.next++
	d.raceAt, d.pause = 0, 0
	d.try(l, s)
}

// note keeps why a target was not connected to.
func (d *dial) note(target int, err error) {
	if d.errs == nil {
		d.errs = make([]error, len(d.targets))
	}
	d.errs[target] = fmt.Errorf("connect to %s: %w", d.targets[target].Name, err)
}

// dismiss closes rival i, which has failed or lost.
func (d *dial) dismiss(l *loop, i int, err error) {
	r := d.rivals[i]
	d.rivals = slices.Delete(d.rivals, i, i+1)
	if err != nil {
		d.note(r.target, err)
	}
	l.drop(&r.endpoint)
	_ = sys.Close(r.fd)
}

// rally looks whether a rival has answered, and makes it the current one then.
func (d *dial) rally(l *loop, s *Session) (won bool, err error) {
	for i := 0; i < len(d.rivals); {
		r := d.rivals[i]
		if !r.writable {
			i++
			continue
		}
		err, ok := r.answer()
		if !ok {
			d.dismiss(l, i, err)
			if d.raceAt != 0 {
				d.raceAt = l.now // the next one need not wait for it
			}
			continue
		}
		if s.ends[1].fd >= 0 {
			d.note(d.next, ErrRaced)
		}
		d.close(l, s)
		d.rivals = slices.Delete(d.rivals, i, i+1)
		s.ends[1], d.next = r.endpoint, r.target
		l.slots[r.slot].e = &s.ends[1]
		return true, err
	}
	return false, nil
}

// answer says whether the socket is connected; if so, err is why it is not any more.
func (e *endpoint) answer() (err error, ok bool) {
	if e.failed || e.hup { // else it stands
		err = sys.SocketError(e.fd)
	}
	switch err {
	case nil:
		return nil, true
	case syscall.ECONNRESET, syscall.EPIPE:
		// It was connected, and reset since: a refusal is ECONNREFUSED.
		return err, true
	}
	return err, false
}

// connect sends the SYN.
func (d *dial) connect(l *loop, s *Session) error {
	t, e := &d.targets[d.next], &s.ends[1]
	fd, err := sys.StreamSocket(t.Address.Family())
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	e.fd = fd
	if t.Address.Family() != syscall.AF_UNIX {
		if err := sys.SetNoDelay(fd); err != nil {
			return fmt.Errorf("setsockopt: %w", err)
		}
		if err := sys.LeaveOOBInline(fd); err != nil {
			return fmt.Errorf("setsockopt: %w", err)
		}
	}
	if s.wire != nil {
		s.wire.clamp(s.ends[0].fd, fd)
	}
	err = l.connect(fd, &t.Address)
	if err != nil && err != syscall.EINPROGRESS {
		return err
	}
	if d.dialing != nil {
		local, _ := sys.LocalAddr(fd) // can't fail: it is a socket
		d.dialing(local)
	}
	*e = endpoint{session: s, fd: fd, slot: -1}
	return l.add(e)
}

// failed gives the current target up.
func (d *dial) failed(l *loop, s *Session, err error) {
	d.note(d.next, err)
	d.pass()
	d.close(l, s)
}

// pass goes on to the next target.
func (d *dial) pass() {
	d.next++
	d.pause, d.raceAt = 0, 0
	if len(d.rivals) == 0 && (d.next == len(d.targets) || !d.targets[d.next].Beside) {
		d.by = 0
	}
}

// again comes back to the current target after a pause.
func (d *dial) again(l *loop, s *Session) {
	d.close(l, s)
	d.pause = min(max(2*d.pause, shortageFirst), dialMost)
	d.at = l.now + d.pause
	s.settle(l)
}

// close gives up the socket of an attempt.
func (d *dial) close(l *loop, s *Session) {
	e := &s.ends[1]
	l.drop(e)
	if e.fd >= 0 {
		_ = sys.Close(e.fd)
	}
	*e = endpoint{session: s, fd: -1, slot: -1} // without what its events said
}

// finish says whether the session is connected now.
func (d *dial) finish(l *loop, s *Session) bool {
	e := &s.ends[1]
	if s.stopping {
		d.giveUp(l, s, Stopped, ErrStopped)
		return false
	}
	rivals := len(d.rivals)
	won, err := d.rally(l, s)
	switch {
	case won:
	case e.writable:
		var ok bool
		if err, ok = e.answer(); !ok {
			d.failed(l, s, err)
			d.try(l, s)
			return false
		}
	case d.deserted(l, s):
		d.giveUp(l, s, ResetBySource, ErrClientLeft)
		return false
	case len(d.rivals) == rivals:
		return false
	case len(d.rivals) == 0 && e.fd < 0: // the last of them
		d.by = 0
		d.try(l, s)
		return false
	default:
		s.settle(l)
		return false
	}
	if err != nil { // what it has sent is delivered, and then the reset
		e.fail(err)
		e.readable, e.hangup = true, true
	}
	for len(d.rivals) > 0 {
		d.dismiss(l, 0, ErrRaced)
	}
	family := d.targets[d.next].Address.Family()
	e.resettable, e.exact = family != syscall.AF_UNIX, family != syscall.AF_UNIX
	if err := d.watch(l, s); err != nil {
		d.close(l, s)
		d.giveUp(l, s, Failed, err)
		return false
	}
	s.dial, s.active = nil, l.now
	if e.resettable && !s.setOptions(1) {
		s.keepAt = l.now + keepDelay
	}
	local, _ := sys.LocalAddr(e.fd) // can't fail: it is a socket
	d.handler.Connected(d.next, local, d.errs)
	return true
}

// giveUp ends the session, with err beside those of the targets, although there may
// be some left.
func (d *dial) giveUp(l *loop, s *Session, r Reason, err error) {
	d.starve(false, nil)
	for len(d.rivals) > 0 {
		d.dismiss(l, 0, nil)
	}
	if r != Stopped {
		err = errors.Join(append(slices.Clone(d.errs), err)...)
	}
	s.ends[0].reset()
	s.stopAll(l, r, err)
	d.handler.Failed(err, d.errs)
}

// watch registers the client's socket.
func (d *dial) watch(l *loop, s *Session) error {
	d.watchAt = 0
	if s.ends[0].slot >= 0 {
		return nil
	}
	return l.add(&s.ends[0])
}

// deserted says whether the client is gone. One that has sent all that it has to
// say, and then its FIN, is not.
func (d *dial) deserted(l *loop, s *Session) bool {
	e := &s.ends[0]
	switch {
	case e.failed:
		return true
	case !e.hangup:
		return false
	}
	if n, err := sys.Unread(e.fd); err != nil || n > 0 {
		return false
	}
	if d.leftAt == 0 {
		d.leftAt = l.now + goodbye
		s.settle(l)
	}
	return l.now >= d.leftAt
}

// due is when the dial has to be looked at next.
func (d *dial) due(s *Session) time.Duration {
	due := d.at
	for _, at := range [...]time.Duration{d.raceAt, d.watchAt, d.leftAt, s.lifetimeEnd()} {
		if at != 0 && at < due {
			due = at
		}
	}
	return due
}

// starve counts the session among those that wait for a descriptor, or no more.
func (d *dial) starve(on bool, err error) {
	if d.starved == on {
		return
	}
	if d.starved = on; !on {
		d.acceptor.starved.Add(-1)
		return
	}
	d.acceptor.starved.Add(1)
	d.acceptor.spec.Held(err)
}

// expire is called when at has come.
func (d *dial) expire(l *loop, s *Session) {
	if end := s.lifetimeEnd(); end != 0 && l.now >= end {
		d.giveUp(l, s, Lifetime, ErrLifetime)
		return
	}
	if d.watchAt != 0 && l.now >= d.watchAt {
		_ = d.watch(l, s) // else it is noticed later, as the dial ends
	}
	if d.deserted(l, s) {
		d.giveUp(l, s, ResetBySource, ErrClientLeft)
		return
	}
	switch {
	case len(d.rivals) > 0 && l.now >= d.by:
		d.late(l, s)
	case d.raceAt != 0 && l.now >= d.raceAt:
		d.race(l, s)
	case l.now < d.at:
		s.settle(l)
	case s.ends[1].fd < 0: // waited for a descriptor
		d.try(l, s)
	default:
		d.late(l, s)
	}
}

// late gives the current target and its rivals up: the time that they had is over, also
// that of addresses which were not tried.
func (d *dial) late(l *loop, s *Session) {
	for len(d.rivals) > 0 {
		d.dismiss(l, 0, syscall.ETIMEDOUT)
	}
	if s.ends[1].fd >= 0 {
		d.failed(l, s, syscall.ETIMEDOUT)
	}
	for d.next < len(d.targets) && d.targets[d.next].Beside {
		d.next++
	}
	d.by = 0
	d.try(l, s)
}

// Shortage says whether err is a lack of descriptors or of memory for them,
// which passes, and is nobody's fault.
func Shortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}
