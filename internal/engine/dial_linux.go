package engine

import (
	"errors"
	"fmt"
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

	next     int
	at       time.Duration // loop clock: the current attempt has failed, or is made again
	by       time.Duration // loop clock: when the current target has failed; 0 before it is tried
	deadline time.Duration // loop clock: of waiting for descriptors
	starved  bool          // is counted as such
	pause    time.Duration // the last one, for the current target
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

func (d *dial) begin(l *loop, s *Session) {
	d.deadline = l.now + d.plan.Timeout
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
			d.again(l, s) // a unix listener whose queue is full
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
		err = s.wire.connect(l, s.ends[0].fd, fd, &t.Address)
	} else {
		err = sys.Connect(fd, &t.Address)
	}
	if err != nil && err != syscall.EINPROGRESS {
		return err
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
		e.fd = -1
	}
}

// finish says whether the session is connected now.
func (d *dial) finish(l *loop, s *Session) bool {
	e := &s.ends[1]
	if s.stopping {
		d.starve(false, nil)
		s.ends[0].reset()
		s.stopAll(l, Stopped, ErrStopped)
		d.handler.Failed(ErrStopped)
		return false
	}
	if !e.writable {
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
	if err := l.add(&s.ends[0]); err != nil {
		d.errs, d.next = append(d.errs, err), len(d.targets)
		d.try(l, s)
		return false
	}
	s.dial, s.active = nil, l.now
	if e.resettable {
		s.keepAt = l.now + keepDelay
	}
	local, _ := sys.LocalAddr(e.fd) // can't fail: it is a socket
	d.handler.Connected(d.next, local)
	return true
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
