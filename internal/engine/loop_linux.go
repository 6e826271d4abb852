package engine

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/spliced-io/spliced/internal/engine/copy"
	"github.com/spliced-io/spliced/internal/sys"
)

// A loop runs the sessions given to it on one goroutine: nothing that a
// session owns needs a lock. It ends by itself when it has had none for a
// while.
type loop struct {
	reactor *Reactor
	ep      int // epoll
	wake    int // eventfd: somebody posted a command

	mu     sync.Mutex
	posted []command
	asleep bool // waits, or is about to: who posts has to wake it
	closed bool // no more commands are taken
	seats  seats

	// For the loop's goroutine alone.
	now      time.Duration // monotonic, since the reactor's epoch
	slots    []slot        // by epoll data
	free     []int32
	ears     []*ear // acceptors, by epoll data
	sessions int
	ready    []*Session // have something to do
	moved    int        // bytes, since the last wait
	waits    uint64     // so far
	spare    []*Session // ready's other array
	commands []command  // posted's other array
	fresh    *Session   // that nobody has used: most clients of a flood need none
	timers   timers
	trimAt   time.Duration // when idle pipes are closed; 0 is never
	buffers  copy.Buffers
}

// A slot is a socket's place in the table. Its turn changes with each holder and
// is in the epoll data too: a registration lives as long as the open file, which
// another descriptor, or a child between fork and exec, can keep beyond the
// session's close(2), and an event of that registration is not for the next
// holder.
type slot struct {
	e    *endpoint
	turn int32
}

type command struct {
	what verb
	s    *Session
	a    *Acceptor
	back *returned
	done *sync.WaitGroup // of who waits for it
}

type verb uint8

const (
	join     verb = iota // take the session in
	stop                 // read nothing more, deliver what is on the way
	stopNow              // give back what is on the way
	abortNow             // end with a RST to both sides
	leaveNow             // end, if it is spliced for good, and leave the flow
	handOver             // end at once, unless the end is near
	listen               // accept from a
	resume               // accept from a again
	pause                // accept nothing from a until then
	deaf                 // accept from a no more
	wireNews             // the program has reported something
	wireBack             // sockets were made again
)

const (
	// linger keeps a loop without sessions for the next one.
	linger = 100 * time.Millisecond
	// trimAfter is how long pipes that nobody uses stay open.
	trimAfter = time.Second
	// wakeSlot is the epoll data of the eventfd; acceptors have those below.
	wakeSlot = -1
	// batch is how many events one epoll_wait takes.
	batch = 128
	// streamTurn is how many bytes between two waits mean that a stream is
	// running.
	streamTurn = 64 << 10
)

func newLoop(r *Reactor) (*loop, error) {
	ep, err := sys.EpollCreate()
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wake, err := sys.Eventfd()
	if err != nil {
		_ = sys.Close(ep)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &loop{reactor: r, ep: ep, wake: wake}
	if err := sys.EpollAddLevel(ep, wake, wakeSlot, 0); err != nil {
		l.close()
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	return l, nil
}

func (l *loop) close() {
	_ = sys.Close(l.ep)
	_ = sys.Close(l.wake)
}

// post hands a command to the loop. It is false when the loop has ended, which
// it only does without sessions.
func (l *loop) post(c command) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, c)
	wake := l.asleep
	l.asleep = false
	l.mu.Unlock()
	if wake {
		_ = sys.EventfdAdd(l.wake) // EAGAIN: it is awake 2^64-2 times over
	}
	return true
}

// run is the loop's goroutine.
func (l *loop) run() {
	// A thread of its own has the scheduler's queues out of the way when the
	// wait ends. It is not unlocked: the thread ends with the loop.
	runtime.LockOSThread()
	defer l.close()
	events := make([]sys.EpollEvent, batch)
	for {
		n, err := l.wait(events)
		if err != nil {
			// EBADF, EFAULT, EINVAL: memory or descriptors were overwritten.
			panic(fmt.Sprintf("splice: epoll_wait: %v", err))
		}
		l.waits++
		l.now = l.reactor.clock()
		for i := range events[:n] {
			l.event(&events[i])
		}
		l.obey()
		l.runReady()
		for t := l.timers.pop(l.now); t != nil; t = l.timers.pop(l.now) {
			t.owner.expire(l)
		}
		if n == 0 && l.idle() {
			return
		}
	}
}

// wait returns the next events. In the middle of a stream it first lets the
// processor go for a moment: where the sender runs on it, there is more to
// fetch when the loop comes back, and it has not slept. That saves a quarter of
// the CPU time and half of the context switches (docs/engines.md).
func (l *loop) wait(events []sys.EpollEvent) (int, error) {
	streaming := l.moved >= streamTurn
	l.moved = 0
	timeout := l.timeout()
	if timeout != 0 && !l.fallAsleep() {
		timeout = 0
	}
	if streaming && timeout != 0 {
		sys.Yield()
		if n, err := sys.EpollWait(l.ep, events, 0); n > 0 || err != nil {
			return n, err
		}
	}
	return sys.EpollWait(l.ep, events, timeout)
}

// fallAsleep is false if something was posted meanwhile: by the loop itself, say.
func (l *loop) fallAsleep() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asleep = len(l.posted) == 0
	return l.asleep
}

// timeout is how long, in milliseconds, epoll may wait.
func (l *loop) timeout() int {
	if len(l.ready) > 0 {
		return 0
	}
	next := l.timers.next()
	if l.trimAt == 0 && l.reactor.pipes.Idle() {
		l.trimAt = l.now + trimAfter
	}
	if l.trimAt != 0 && (next == 0 || l.trimAt < next) {
		next = l.trimAt
	}
	if l.sessions == 0 {
		return int(linger / time.Millisecond)
	}
	if next == 0 {
		return -1
	}
	// Rounded up: a timer that rings early would make the loop spin.
	ms := (next - l.reactor.clock() + time.Millisecond - 1) / time.Millisecond
	return int(min(max(0, ms), 1<<30)) // epoll_wait's is an int of 32 bits
}

// idle does what is due when nothing happened, and says whether the loop can
// end.
func (l *loop) idle() bool {
	if l.sessions == 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.posted) > 0 || l.seats.taken() > 0 {
			return false
		}
		l.closed = true
		l.reactor.pipes.Trim()
		l.reactor.sockmap.trim()
		return true
	}
	return false
}

func (l *loop) event(ev *sys.EpollEvent) {
	if ev.Fd == wakeSlot {
		sys.EventfdDrain(l.wake)
		return
	}
	if ev.Fd < lastSeat {
		l.said(ev)
		return
	}
	if ev.Fd < wakeSlot {
		if e := l.ears[wakeSlot-1-ev.Fd]; e != nil {
			e.accept(l)
		}
		return
	}
	slot := &l.slots[ev.Fd]
	if slot.e == nil || slot.turn != ev.Pad {
		return // of a socket that was here before
	}
	slot.e.event(ev.Events)
	l.queue(slot.e.session)
}

func (l *loop) queue(s *Session) {
	if !s.queued {
		s.queued = true
		l.ready = append(l.ready, s)
	}
}

// runReady gives each session that has something to do one turn.
func (l *loop) runReady() {
	turn := l.ready
	l.ready = l.spare[:0]
	for i, s := range turn {
		s.queued = false
		s.run(l)
		turn[i] = nil
	}
	l.spare = turn
	if l.trimAt != 0 && l.now >= l.trimAt {
		l.trimAt = 0
		l.reactor.pipes.Trim()
	}
}

func (l *loop) obey() {
	l.mu.Lock()
	l.asleep = false
	commands := l.posted
	l.posted = l.commands[:0]
	l.mu.Unlock()
	if len(commands) > 0 {
		l.now = l.reactor.clock() // not from before they were posted
	}
	for i, c := range commands {
		commands[i] = command{}
		switch {
		case c.what == join:
			l.join(c.s)
		case c.what == listen:
			l.listen(c.a)
		case c.what == resume:
			l.ear(c.a).open(l)
		case c.what == pause:
			l.pause(c.a)
			c.done.Done()
		case c.what == deaf:
			l.deaf(c.a)
		case c.what == wireBack:
			c.s.wireBack(l, c.back)
		case c.s.over:
		case c.what == wireNews:
			c.s.wireNews(l)
		case c.what == stop:
			c.s.stopping = true
			l.queue(c.s)
		case c.what == stopNow:
			c.s.stopping, c.s.hurried = true, true
			c.s.run(l) // a last attempt to deliver
			if !c.s.over {
				c.s.stopNow(l)
			}
		case c.what == abortNow:
			c.s.abortNow(l)
		case c.what == handOver:
			c.s.handOver(l)
		case c.what == leaveNow:
			if c.s.wire != nil {
				c.s.wire.back.leave = true
			}
			if c.s.wire.carried() {
				c.s.run(l)
			}
		}
	}
	l.commands = commands
}

// join takes a session in. Its first events say what is readable and writable
// already.
func (l *loop) join(s *Session) {
	l.sessions++
	s.active = l.now - s.quiet
	s.dirs[0].brake, s.dirs[1].brake = s.limits.Brakes()
	if s.dial != nil {
		s.dial.begin(l, s)
		return
	}
	if s.wire.carried() { // adopted
		s.wire.refresh(l, s)
		return
	}
	for i := range s.ends {
		if err := l.add(&s.ends[i]); err != nil {
			s.stopAll(l, Failed, err)
			return
		}
	}
	s.settle(l)
}

// add registers a socket.
func (l *loop) add(e *endpoint) error {
	e.slot = l.slot(e)
	if err := sys.EpollAddEdge(l.ep, e.fd, e.slot, l.slots[e.slot].turn, true); err != nil {
		// ENOMEM, ENOSPC (fs.epoll.max_user_watches): nothing was read yet.
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// deafen has the loop not woken for room in a socket's send buffer, until it is
// found full: till then room is assumed. It is for sockets whose bytes a program
// redirects: each segment rings, but epoll_wait finds nothing to tell then, and
// goes on waiting.
func (l *loop) deafen(e *endpoint) {
	if !e.deaf && sys.EpollEdge(l.ep, e.fd, e.slot, l.slots[e.slot].turn, false) == nil {
		e.deaf, e.writable = true, true
	}
}

// full notes that a socket has no room: the loop is woken when it has.
func (l *loop) full(e *endpoint) error {
	e.writable, e.fullAt = false, l.now
	return l.hear(e)
}

// hear undoes deafen.
func (l *loop) hear(e *endpoint) error {
	if !e.deaf {
		return nil
	}
	if err := sys.EpollEdge(l.ep, e.fd, e.slot, l.slots[e.slot].turn, true); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	e.deaf = false
	return nil
}

// drop gives up a socket's slot.
func (l *loop) drop(e *endpoint) {
	if e.slot >= 0 {
		slot := &l.slots[e.slot]
		slot.e = nil
		slot.turn++
		l.free = append(l.free, e.slot)
		e.slot = -1
	}
}

func (l *loop) slot(e *endpoint) int32 {
	if n := len(l.free); n > 0 {
		i := l.free[n-1]
		l.free = l.free[:n-1]
		l.slots[i].e = e
		return i
	}
	l.slots = append(l.slots, slot{e: e})
	return int32(len(l.slots) - 1)
}

// end lets a session go and tells those who wait for it.
func (l *loop) end(s *Session) {
	l.timers.set(&s.timer, 0)
	l.sessions--
	if s.wire != nil {
		s.wire.cut(l, s)
	}
	keep := s.keeps()
	for i := range s.ends {
		e := &s.ends[i]
		l.drop(e)
		if e.fd < 0 {
			continue // never connected
		}
		if s.shared || keep {
			// Another descriptor keeps the open file, or may: close(2) would
			// leave the registration behind.
			_ = sys.EpollDel(l.ep, e.fd)
		}
		if !s.own || keep {
			e.restore()
		}
		if !keep {
			_ = sys.Close(e.fd)
		}
	}
	l.reactor.release(s)
	s.endAt = max(l.now, s.startedAt) // the loop's clock stands still between two waits
	if s.onEnd != nil && s.dial == nil {
		s.onEnd(s.Result())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !keep {
		s.ends[0].fd, s.ends[1].fd = -1, -1
	}
	s.over = true
	if s.done != nil {
		close(s.done)
	}
}
