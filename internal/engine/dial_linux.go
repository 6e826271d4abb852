package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// A dial connects a session's b side: the loop tries the targets in turn.
type dial struct {
	acceptor *Acceptor
	plan     *Plan
	targets  []Target
	handler  Handler
	dialing  func(local netip.AddrPort)

	next     int
	at       time.Duration // loop clock: the current attempt has failed, or is made again
	by       time.Duration // loop clock: when the current target has failed; 0 before it is tried
	deadline time.Duration // loop clock: of waiting for descriptors
	starved  bool          // is counted as such
	pause    time.Duration // the last one, for the current target
	watchAt  time.Duration // loop clock: the client is watched from then on; 0 is, or is not to be
	leftAt   time.Duration // loop clock: then a client that has said goodbye, and nothing else, has left; 0 has not
	errs     []error
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
		if d.by == 0 {
			d.by = l.now + d.plan.Timeout
		}
		err := d.connect(l, s)
		if err == nil {
			d.starve(false, nil)
			d.at = d.by
			s.settle(l)
			return
		}
		if Shortage(err) && l.now < d.deadline {
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
	err := errors.Join(d.errs...)
	s.ends[0].reset()
	s.stopAll(l, Failed, err)
	d.handler.Failed(err)
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
	d.errs = append(d.errs, fmt.Errorf("connect to %s: %w", d.targets[d.next].Name, err))
	d.next++
	d.by, d.pause = 0, 0
	d.close(l, s)
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
	if !e.writable {
		if d.deserted(l, s) {
			d.giveUp(l, s, ResetBySource, errors.Join(append(d.errs, ErrClientLeft)...))
		}
		return false
	}
	var err error
	if e.failed || e.hup { // else it stands
		err = sys.SocketError(e.fd)
	}
	switch err {
	case nil:
	case syscall.ECONNRESET, syscall.EPIPE:
		// It was connected, and reset since: a refusal is ECONNREFUSED. What
		// it has sent is delivered, and then the reset.
		e.fail(err)
		e.readable, e.hangup = true, true
	default:
		d.failed(l, s, err)
		d.try(l, s)
		return false
	}
	family := d.targets[d.next].Address.Family()
	e.resettable, e.exact = family != syscall.AF_UNIX, family != syscall.AF_UNIX
	if err := d.watch(l, s); err != nil {
		d.errs, d.next = append(d.errs, err), len(d.targets)
		d.try(l, s)
		return false
	}
	s.dial, s.active = nil, l.now
	if e.resettable && !s.setOptions(1) {
		s.keepAt = l.now + keepDelay
	}
	local, _ := sys.LocalAddr(e.fd) // can't fail: it is a socket
	d.handler.Connected(d.next, local)
	return true
}

// giveUp ends the session although there may be targets left.
func (d *dial) giveUp(l *loop, s *Session, r Reason, err error) {
	d.starve(false, nil)
	s.ends[0].reset()
	s.stopAll(l, r, err)
	d.handler.Failed(err)
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
	for _, at := range [...]time.Duration{d.watchAt, d.leftAt, s.lifetimeEnd()} {
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
		d.giveUp(l, s, Lifetime, errors.Join(append(d.errs, ErrLifetime)...))
		return
	}
	if d.watchAt != 0 && l.now >= d.watchAt {
		_ = d.watch(l, s) // else it is noticed later, as the dial ends
	}
	if d.deserted(l, s) {
		d.giveUp(l, s, ResetBySource, errors.Join(append(d.errs, ErrClientLeft)...))
		return
	}
	switch {
	case l.now < d.at:
		s.settle(l)
	case s.ends[1].fd < 0: // waited for a descriptor
		d.try(l, s)
	default:
		d.failed(l, s, syscall.ETIMEDOUT)
		d.try(l, s)
	}
}

// Shortage says whether err is a lack of descriptors or of memory for them,
// which passes, and is nobody's fault.
func Shortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}
