package engine

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// An AcceptSpec says what becomes of the connections to a listening socket.
// The functions are called by event loops, several at a time, and must not
// block.
type AcceptSpec struct {
	FD int // the listening socket, non-blocking: the acceptor's own

	// Admit is asked before each accept. After false nothing is accepted until
	// [Acceptor.Resume].
	Admit func() bool
	// Accepted is told of each connection and says what becomes of it. The
	// session may be kept, and used once Accepted has returned, but not if the
	// connection is held: then it is another's.
	Accepted func(s *Session, client netip.AddrPort) Way
	// Held is told when accept(2) fails for a reason that passes; the acceptor
	// tries again, ever more slowly, up to once a second.
	Held func(error)
	// Paused registers nothing before the first [Acceptor.Resume].
	Paused bool
}

// An Acceptor accepts, dials and joins on the event loops.
type Acceptor struct {
	spec  AcceptSpec
	exact bool // see endpoint
	// inline says that connections leave urgent bytes in the stream from the first one on.
	inline bool
	loops  []*loop
	ears   atomic.Int32   // loops that have not let go yet
	gone   sync.WaitGroup // of them
	once   sync.Once

	fdMu   sync.Mutex // for closed
	closed bool       // the listening socket is

	// starved counts sessions that wait for a descriptor. They come first: as
	// long as there are any, nobody is accepted.
	starved atomic.Int32
}

// An ear is an acceptor's place in one loop.
type ear struct {
	a     *Acceptor
	slot  int32
	turn  int32  // how many were accepted at most, last
	waits uint64 // the loop's count then
	deaf  bool   // not registered
	timer timer
	pause time.Duration // the last one after a failure
}

// acceptTurn is how many connections are accepted at most before others have a
// turn.
const acceptTurn = 16

// Listen starts to accept. On success the descriptor belongs to the acceptor.
func (r *Reactor) Listen(spec AcceptSpec) (*Acceptor, error) {
	a := &Acceptor{spec: spec}
	if err := a.prepare(); err != nil {
		return nil, err
	}
	if err := r.attach(a); err != nil {
		a.Close()
		a.Wait() // the caller closes the descriptor
		return nil, err
	}
	return a, nil
}

// attach has every loop accept. After an error some do; as long as not all have
// been told, none closes the descriptor.
func (r *Reactor) attach(a *Acceptor) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.init()
	a.ears.Store(int32(len(r.loops)))
	for i := 0; i < len(r.loops); {
		l, err := r.started(i)
		if err != nil {
			return err
		}
		if a.gone.Add(1); !l.post(command{what: listen, a: a}) {
			a.gone.Done()
			continue // it has just ended: started makes another
		}
		a.loops = append(a.loops, l)
		i++
	}
	return nil
}

// prepare sets the options that connections inherit from their listener, which
// saves setting them on each.
func (a *Acceptor) prepare() error {
	family, err := sys.LocalFamily(a.spec.FD)
	if err != nil {
		return fmt.Errorf("getsockname: %w", err)
	}
	switch listens, err := sys.Listens(a.spec.FD); {
	case err != nil:
		return fmt.Errorf("getsockopt: %w", err)
	case !listens:
		return fmt.Errorf("the socket does not listen: %w", syscall.EINVAL)
	}
	if _, err := sys.SetNonblock(a.spec.FD, true); err != nil {
		return fmt.Errorf("fcntl: %w", err)
	}
	if family == syscall.AF_UNIX {
		a.inline = true // there are none
		return nil
	}
	protocol, err := sys.SocketProtocol(a.spec.FD)
	if err != nil {
		return fmt.Errorf("getsockopt: %w", err)
	}
	a.exact = protocol == syscall.IPPROTO_TCP
	if err := sys.SetTCP(a.spec.FD, keepIdle, keepInterval, keepCount); err != nil {
		return fmt.Errorf("setsockopt: %w", err)
	}
	_, err = sys.SetOOBInline(a.spec.FD, true)
	a.inline = err == nil // EOPNOTSUPP: MPTCP has no urgent data, but clients without MPTCP have
	return nil
}

// Resume accepts again after Admit has said no, or for the first time.
func (a *Acceptor) Resume() {
	for _, l := range a.loops {
		l.post(command{what: resume, a: a})
	}
}

// Pause accepts nobody until [Acceptor.Resume]. When it returns no loop waits for
// connections any more, so that another process which does is told of each. It
// must not be called by an event loop.
func (a *Acceptor) Pause() {
	var done sync.WaitGroup
	for _, l := range a.loops {
		done.Add(1)
		if !l.post(command{what: pause, a: a, done: &done}) {
			done.Done()
		}
	}
	done.Wait()
}

// Close tells the loops to accept no more. Sessions go on.
func (a *Acceptor) Close() {
	a.once.Do(func() {
		for _, l := range a.loops {
			l.post(command{what: deaf, a: a})
		}
	})
}

// Dup returns another descriptor of the listening socket; EBADF after a Close.
func (a *Acceptor) Dup() (int, error) {
	a.fdMu.Lock()
	defer a.fdMu.Unlock()
	if a.closed {
		return -1, syscall.EBADF
	}
	return sys.Dup(a.spec.FD)
}

// Wait returns when no loop accepts any more, after a Close. It must not be
// called by an event loop.
func (a *Acceptor) Wait() { a.gone.Wait() }

func (l *loop) listen(a *Acceptor) {
	l.sessions++ // keeps the loop
	e := &ear{a: a, slot: int32(len(l.ears)), deaf: true}
	for i, free := range l.ears {
		if free == nil {
			e.slot = int32(i)
		}
	}
	if int(e.slot) == len(l.ears) {
		l.ears = append(l.ears, nil)
	}
	l.ears[e.slot] = e
	e.timer.owner = e
	if !a.spec.Paused {
		e.open(l)
	}
}

func (l *loop) ear(a *Acceptor) *ear {
	for _, e := range l.ears {
		if e != nil && e.a == a {
			return e
		}
	}
	return nil
}

func (l *loop) pause(a *Acceptor) {
	if e := l.ear(a); e != nil {
		e.rest(l)
	}
}

func (l *loop) deaf(a *Acceptor) {
	if e := l.ear(a); e != nil {
		e.rest(l)
		l.ears[e.slot] = nil
		l.sessions--
		if a.ears.Add(-1) == 0 {
			a.fdMu.Lock()
			a.closed = true
			_ = sys.Close(a.spec.FD)
			a.fdMu.Unlock()
		}
		a.gone.Done()
	}
}

// open registers the listening socket.
func (e *ear) open(l *loop) {
	if e == nil || !e.deaf {
		return
	}
	l.timers.set(&e.timer, 0)
	if err := sys.EpollAddListener(l.ep, e.a.spec.FD, wakeSlot-1-e.slot, 0); err != nil {
		e.hold(l, err)
		return
	}
	e.deaf = false
}

func (e *ear) close(l *loop) {
	if !e.deaf {
		_ = sys.EpollDel(l.ep, e.a.spec.FD)
		e.deaf = true
	}
}

// rest closes it, and no timer opens it again.
func (e *ear) rest(l *loop) {
	e.close(l)
	l.timers.set(&e.timer, 0)
}

// hold stops accepting for a while.
func (e *ear) hold(l *loop, err error) {
	e.close(l)
	e.pause = min(max(2*e.pause, shortageFirst), shortageMost)
	l.timers.set(&e.timer, l.now+e.pause)
	if err != nil {
		e.a.spec.Held(err)
	}
}

func (e *ear) expire(l *loop) { e.open(l) }

// accept takes in one connection, and more each time where others wait: that is
// told by the next event, and needs no accept(2) that finds nobody.
func (e *ear) accept(l *loop) {
	if e.deaf {
		return // an event from before
	}
	spec := &e.a.spec
	turn := int32(1)
	if e.waits+1 == l.waits {
		turn = min(2*e.turn, acceptTurn)
	}
	e.turn, e.waits = turn, l.waits
	for range turn {
		if e.a.starved.Load() > 0 {
			e.hold(l, nil)
			return
		}
		if !spec.Admit() {
			e.close(l)
			return
		}
		fd, client, err := sys.Accept(spec.FD)
		switch err {
		case nil:
			e.pause = 0
			e.take(l, fd, client)
		case syscall.EAGAIN:
			return
		case syscall.ECONNABORTED, syscall.EPROTO, syscall.ENETDOWN, syscall.ENOPROTOOPT, syscall.EHOSTDOWN,
			syscall.ENONET, syscall.EHOSTUNREACH, syscall.EOPNOTSUPP, syscall.ENETUNREACH, syscall.EPERM:
			// They belong to the one connection that was to be accepted: see
			// accept(2).
		default:
			e.hold(l, err)
			return
		}
	}
}

// take starts the session of a new connection on this loop.
func (e *ear) take(l *loop, fd int, client netip.AddrPort) {
	if !e.a.inline {
		_ = sys.LeaveOOBInline(fd)
	}
	s := l.fresh
	if s == nil {
		s = &Session{own: true, loop: l}
	}
	way := e.a.spec.Accepted(s, client)
	if way.Hold != nil {
		l.fresh = s
		way.Hold(Held{FD: fd, Client: client, acceptor: e.a, loop: l})
		return
	}
	l.fresh = nil
	e.a.lead(s, fd, client, way)
	s.started, s.startedAt = time.Now(), l.now
	l.join(s)
}

// lead makes s that of a connection with a way.
func (a *Acceptor) lead(s *Session, fd int, client netip.AddrPort, way Way) {
	p := way.Plan
	s.limits = p.Limits
	if way.Lifetime > 0 {
		s.limits.Lifetime = way.Lifetime
	}
	if s.wire = wireFor(p.Kind, p.Wire, p.Limits); s.wire != nil {
		s.wire.from, s.wire.hears = a, way.Handler
	}
	s.redirect = redirectFor(p.Kind)
	s.timer.owner = s
	here, there := &s.ends[0], &s.ends[1]
	*here = endpoint{session: s, fd: fd, slot: -1, resettable: client.IsValid(), exact: a.exact, inline: true}
	*there = endpoint{session: s, fd: -1, slot: -1}
	s.setOptions(0)
	s.dirs[0].init(here, there, p.Limits.MaxAToB, nil)
	s.dirs[1].init(there, here, p.Limits.MaxBToA, nil)
	for i := range s.dirs {
		s.dirs[i].choice.init(p.kind, p.why)
	}
	s.onEnd = way.Handler.Ended
	s.dial = &dial{acceptor: a, plan: p, targets: way.Targets, handler: way.Handler, dialing: way.Dialing, trying: way.Trying}
}
