package engine

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// A Spec is what a session is started with.
type Spec struct {
	Kind         Kind
	A, B         int // descriptors that the session may close: its own
	Limits       Limits
	FromA, FromB []byte // bytes already read
	Own          bool   // nobody else holds the sockets: after a stop they stay open for Take
	OnEnd        func(Result)
	OnSockets    func(held bool)   // as Handler.Sockets
	Note         func(Flow) string // as Handler.Note
	Wire         WirePolicy
	Past         *Past // nil: a new session. Limits has its limits too
}

// A Session is a joined pair. Its loop owns every field but those said to be
// for anybody.
type Session struct {
	loop     *loop
	ends     [2]endpoint
	dirs     [2]direction // a to b, b to a
	dial     *dial        // until b is connected
	wire     *wiring      // nil: stays with the sockets
	redirect *redirection // nil: not by the engine sockmap
	limits   Limits
	onEnd    func(Result)

	own, stopping, queued bool
	shared                bool // somebody else may have descriptors of its sockets
	hurried               bool // waits for nobody any more
	parted                bool // its own sockets were prepared for their end
	timer                 timer
	active                time.Duration // loop clock: the last byte or FIN
	quiet                 time.Duration // since the last byte or FIN, at the start
	abortWait             time.Duration // the next look at an unacknowledged queue comes after that
	abortAt, abortBy      time.Duration // loop clock: the next look, and the last if nothing changes; 0 is none
	unacked               [2]int        // at the last look
	keepAt                time.Duration // loop clock: when b is to be probed for signs of life; 0 is not, or is already

	// For anybody.
	started   time.Time
	startedAt time.Duration
	progress  atomic.Int64 // loop clock of the last byte moved, 0 before
	wired     atomic.Pointer[wired]
	wireStats atomic.Pointer[WireStats]
	adoptedBy atomic.Pointer[loop]

	mu    sync.Mutex
	done  chan struct{} // made by the first that waits
	over  bool
	endAt time.Duration
}

// Unacknowledged bytes are given time before a RST throws them away: the loop
// looks again after abortFirst, then at growing distances, until none has been
// acknowledged for abortPatience.
const (
	abortFirst    = time.Millisecond
	abortMost     = 50 * time.Millisecond
	abortPatience = 60 * time.Second
)

// Stats is exact at the moment of the call.
func (s *Session) Stats() Stats {
	wired := s.wired.Load() // first: afterwards the directions have its last count
	st := Stats{Wire: s.wireStats.Load(), AToB: s.dirs[0].stats(), BToA: s.dirs[1].stats(), Started: s.started, LastProgress: s.started}
	if p := s.progress.Load(); p != 0 {
		st.LastProgress = s.started.Add(time.Duration(p) - s.startedAt)
	}
	for i := range s.dirs {
		if at := s.dirs[i].lastRedirect(); at != 0 {
			if moved := s.redirect.epoch.Add(at - s.redirect.mono); moved.After(st.LastProgress) {
				st.LastProgress = moved
			}
		}
	}
	if wired != nil {
		wired.live(s, &st)
	}
	return st
}

// settled waits, for a system call's length, until out says what was delivered:
// who has received a byte finds it counted. It gives up after a while, lest a
// loop that the machine has stopped should stop others.
func (d *direction) settled() {
	for i := range 1000 {
		if !d.moving.Load() {
			return
		}
		if i < 100 {
			runtime.Gosched()
		} else {
			time.Sleep(10 * time.Microsecond) // the loop may need this very processor
		}
	}
}

func (d *direction) stats() DirectionStats {
	d.settled()
	kind, why := d.choice.current()
	st := DirectionStats{
		Spliced: d.spliced.Load(),
		Engine:  kind, Why: why, Reason: Reason(d.state.Load()),
	}
	var inMaps bool
	st.Bytes, st.Redirected, inMaps = d.delivered()
	if inMaps {
		if st.Engine, st.Why = Sockmap, WhyRedirected; st.Bytes == 0 {
			st.Why = WhyNoBytes
		}
	}
	return st
}

// delivered counts the bytes that are with the drain's socket, and of these
// those that were redirected. It is for anybody.
func (d *direction) delivered() (all, redirected int64, inMaps bool) {
	d.laneMu.Lock()
	defer d.laneMu.Unlock()
	redirected = d.redirected
	if d.lane != nil {
		redirected += d.lane.Redirected()
	}
	return d.out.Load() + redirected, redirected, d.lane != nil
}

// lastRedirect is when a byte was last redirected, on CLOCK_MONOTONIC; 0 is
// never, or not any more. It is for anybody.
func (d *direction) lastRedirect() time.Duration {
	d.laneMu.Lock()
	defer d.laneMu.Unlock()
	if d.lane == nil {
		return 0
	}
	return d.lane.Moved()
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
		if s.over {
			close(s.done)
		}
	}
	return s.done
}

// Result is complete once Done is closed.
func (s *Session) Result() Result {
	return Result{
		AToB: s.dirs[0].end(), BToA: s.dirs[1].end(),
		Stats: s.Stats(), Ended: s.started.Add(s.endAt - s.startedAt),
	}
}

func (d *direction) end() End {
	n, _, _ := d.delivered()
	return End{Bytes: n, Reason: Reason(d.state.Load()), Err: d.err, Undelivered: d.undelivered}
}

// Stop ends the session: nothing more is read, and what is on the way is
// delivered, until ctx ends; what is left then is in the Result.
func (s *Session) Stop(ctx context.Context) Result {
	done := s.Done()
	if ctx.Err() == nil {
		s.loop.post(command{what: stop, s: s})
	}
	select {
	case <-done:
	case <-ctx.Done():
		s.loop.post(command{what: stopNow, s: s})
		<-done
	}
	return s.Result()
}

// Abort ends the session with a RST to both sides, soon. Nothing can be taken
// from it afterwards.
func (s *Session) Abort() { s.loop.post(command{what: abortNow, s: s}) }

// Leave ends the session once its packets are spliced under the name of an instance:
// the flow goes on without this process, until the next of that name adopts it.
// Until then it goes on.
func (s *Session) Leave() { s.loop.post(command{what: leaveNow, s: s}) }

// Take gives up the descriptors of an owned session that was stopped. ok is
// false if the session has closed them, or they were taken before.
func (s *Session) Take() (a, b int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over || s.ends[0].fd < 0 {
		return 0, 0, false
	}
	a, b = s.ends[0].fd, s.ends[1].fd
	s.ends[0].fd, s.ends[1].fd = -1, -1
	return a, b, true
}

// Discard resets and closes what Take would give.
func (s *Session) Discard() {
	a, b, ok := s.Take()
	if !ok {
		return
	}
	for i, fd := range [...]int{a, b} {
		e := s.ends[i]
		e.fd = fd
		e.reset()
		_ = sys.Close(fd)
	}
}

// run moves what can be moved in both directions.
func (s *Session) run(l *loop) {
	if s.over {
		return
	}
	if s.dial != nil && !s.dial.finish(l, s) {
		return
	}
	if s.ended() {
		if s.abortAt != 0 {
			s.tryAbort(l) // a peer that is gone need not be waited for
		}
		s.settle(l)
		return
	}
	if s.wire.carried() {
		s.wire.step(l, s)
		s.settle(l)
		return
	}
	if s.redirect != nil {
		if s.redirect.begin(l, s); s.over {
			return
		}
	}
	again := false
	for i := range s.dirs {
		if !s.wire.halted(i) {
			again = s.dirs[i].run(l, s) || again
		}
	}
	if again {
		l.queue(s)
	}
	for i := range s.ends {
		// A direction that reads finds out by itself.
		if s.dirs[i].ended() && !s.dirs[1-i].ended() {
			if err := s.ends[i].gone(); err != nil {
				s.drainFailed(l, &s.dirs[1-i], err)
			}
		}
	}
	if s.wire != nil {
		s.wire.step(l, s)
	}
	if s.redirect != nil {
		s.redirect.left(l, s)
	}
	s.settle(l)
}

func (s *Session) moved(l *loop) {
	s.active = l.now
	s.progress.Store(int64(max(l.now, s.startedAt))) // the loop's clock may be from before the start
}

// opposite is the direction that reads where d writes.
func (s *Session) opposite(d *direction) *direction {
	if d == &s.dirs[0] {
		return &s.dirs[1]
	}
	return &s.dirs[0]
}

// sourceEnded: d's source gave its last byte, and all of them are delivered.
func (s *Session) sourceEnded(l *loop, d *direction) {
	s.active = l.now
	if err := d.src.err; err != nil {
		s.fail(l, d, ResetBySource, err)
		s.abort(l, d.dst)
		// Nothing can be delivered to it any more either.
		s.fail(l, s.opposite(d), ResetByDrain, err)
		return
	}
	// The second FIN of sockets that nobody else has is sent by their close(2),
	// which comes next.
	if !s.own || s.shared || s.opposite(d).reason() != EOF {
		// ENOTCONN: the drain was reset, which the other direction finds out.
		_ = sys.Shutdown(d.dst.fd, syscall.SHUT_WR)
	}
	d.finish(l, EOF, nil)
}

// drainFailed: d's drain takes nothing more, ever.
func (s *Session) drainFailed(l *loop, d *direction, err error) {
	s.active = l.now
	d.dst.fail(err)
	s.fail(l, d, ResetByDrain, err)
	// The other direction reads what the broken socket still has, finds the
	// error, and passes it on; if it has ended before, nobody else does.
	d.dst.readable = true
	if s.opposite(d).ended() {
		s.abort(l, d.src)
	} else {
		l.queue(s)
	}
}

// fail ends d for a broken connection, or for a problem of this machine.
func (s *Session) fail(l *loop, d *direction, r Reason, err error) {
	if !broken(err) {
		r = Failed
	}
	d.finish(l, r, err)
}

// abort sends e a RST as soon as its peer has acknowledged what was delivered.
func (s *Session) abort(l *loop, e *endpoint) {
	e.aborting = true
	s.awaitAcks(l)
}

// awaitAcks begins to wait for what the sockets that are to end have not
// delivered.
func (s *Session) awaitAcks(l *loop) {
	s.abortWait, s.abortBy = abortFirst, s.patience(l)
	s.tryAbort(l)
}

// patience is when the wait ends if nothing is acknowledged.
func (s *Session) patience(l *loop) time.Duration {
	if s.hurried {
		return l.now
	}
	by := l.now + abortPatience
	if s.limits.Lifetime > 0 {
		by = min(by, s.startedAt+s.limits.Lifetime+LifetimeGrace)
	}
	return by
}

func (s *Session) tryAbort(l *loop) {
	s.abortAt = 0
	if s.wire.draining() {
		s.wire.drainEnded(l, s)
	}
	for i := range s.ends {
		e := &s.ends[i]
		if !e.aborting && !e.parting {
			continue
		}
		n := e.unacked()
		if n < s.unacked[i] {
			s.abortBy = s.patience(l) // slow, but it reads
		}
		s.unacked[i] = n
		if n > 0 && l.now < s.abortBy {
			s.abortAt = l.now + s.abortWait
			s.abortWait = min(2*s.abortWait, abortMost)
			continue
		}
		if e.aborting {
			e.reset()
		}
		if e.parting {
			e.parting = false
			e.discard()
		}
	}
}

// part prepares the session's own sockets for their end. It is the caller's
// part where they are not: nothing is lost by merely giving them back.
func (s *Session) part(l *loop) {
	s.parted = true
	for i := range s.ends {
		e, from, to := &s.ends[i], &s.dirs[i], &s.dirs[1-i]
		if e.fd < 0 || e.err != nil || e.aborting || from.reason() == EOF && to.reason() == EOF {
			continue
		}
		// A stream that was cut in the middle has no clean end.
		if to.stalled() {
			e.reset()
			continue
		}
		if to.reason() == Lifetime {
			e.aborting = true
			continue
		}
		e.part()
	}
	s.awaitAcks(l)
}

// stalled says whether d's receiver has left bytes with the session for the time of a
// limit, or with the source, which was not read then.
func (d *direction) stalled() bool {
	switch d.reason() {
	case Max:
		return false
	case Idle, HalfClosed:
		if n, err := sys.Unread(d.src.fd); err == nil && n > 0 {
			return true
		}
	}
	return len(d.undelivered) > 0
}

// stopNow ends what a Stop could not end in time.
func (s *Session) stopNow(l *loop) {
	if !s.ended() && (s.wire.carried() || s.wire.draining()) {
		s.wire.hurry(l)
		s.settle(l)
		return
	}
	s.abortBy = s.patience(l)
	s.tryAbort(l)
	s.stopAll(l, Stopped, ErrStopped)
}

// abortNow ends the session with a RST to both sides.
func (s *Session) abortNow(l *loop) {
	if s.dial != nil {
		s.stopping = true
		s.run(l)
		return
	}
	s.stopping, s.parted, s.abortAt = false, true, 0 // nobody gets the sockets
	if !s.wire.carried() {
		for i := range s.ends {
			s.ends[i].reset()
		}
	}
	s.stopAll(l, Stopped, ErrStopped)
}

// stopAll ends what has not ended yet. What is held becomes Undelivered.
func (s *Session) stopAll(l *loop, r Reason, err error) {
	if s.wire != nil {
		s.wire.cut(l, s)
	}
	for i := range s.dirs {
		s.dirs[i].finish(l, r, err)
	}
	s.settle(l)
}

// settle ends the session when both directions have ended and nothing is left
// to do, or sets its timer.
func (s *Session) settle(l *loop) {
	if s.over {
		return
	}
	if s.ended() && s.own && !s.keeps() && !s.parted && s.dial == nil {
		if !s.redirect.entrusted(l, s) {
			l.timers.set(&s.timer, s.due())
			return
		}
		s.part(l)
	}
	if s.ended() && s.abortAt == 0 && s.redirect.done(l, s) {
		l.end(s)
		return
	}
	l.timers.set(&s.timer, s.due())
}

// ended says that no more bytes will move: at most a RST has to be sent.
func (s *Session) ended() bool { return s.dirs[0].ended() && s.dirs[1].ended() }

// keeps says whether the sockets of an ended session stay open for Take: they
// do if it was a Stop that ended it. What ended by itself is shut down, reset,
// or about to be.
func (s *Session) keeps() bool {
	return s.own && s.dial == nil && !s.parted && (s.dirs[0].reason() == Stopped || s.dirs[1].reason() == Stopped)
}

// due is when the session must be looked at next, 0 for never.
func (s *Session) due() time.Duration {
	if s.ended() {
		if s.abortAt == 0 && s.redirect != nil {
			return s.redirect.at
		}
		return s.abortAt
	}
	if s.dial != nil {
		return s.dial.due(s)
	}
	due := time.Duration(0)
	sooner := func(t time.Duration) {
		if due == 0 || t < due {
			due = t
		}
	}
	if d, _ := s.idleLimit(); d > 0 {
		sooner(s.active + d)
	}
	if end := s.lifetimeEnd(); end != 0 {
		sooner(end)
	}
	if s.wire != nil && s.wire.at != 0 {
		sooner(s.wire.at)
	}
	if s.redirect != nil && s.redirect.at != 0 {
		sooner(s.redirect.at)
	}
	if s.keepAt != 0 {
		sooner(s.keepAt)
	}
	for i := range s.dirs {
		if at := s.dirs[i].brakes; at != 0 {
			sooner(at)
		}
	}
	return due
}

// lifetimeEnd is when the session is too old, 0 for never.
func (s *Session) lifetimeEnd() time.Duration {
	if s.limits.Lifetime <= 0 {
		return 0
	}
	return s.startedAt + s.limits.Lifetime
}

func (s *Session) idleLimit() (time.Duration, bool) {
	half := s.dirs[0].ended() != s.dirs[1].ended()
	if half && s.limits.HalfClose > 0 {
		return s.limits.HalfClose, true
	}
	return s.limits.Idle, false
}

// expire acts on what is due.
func (s *Session) expire(l *loop) {
	if s.abortAt != 0 && l.now >= s.abortAt {
		s.tryAbort(l)
	}
	if s.ended() {
		s.settle(l)
		return
	}
	if s.dial != nil {
		s.dial.expire(l, s)
		return
	}
	if s.keepAt != 0 && l.now >= s.keepAt {
		s.keepAt = 0
		if fd := s.ends[1].fd; fd >= 0 { // else it was handed over
			_ = sys.SetKeepAlive(fd, keepIdle, keepInterval, keepCount) // it is a TCP socket: can't fail
		}
	}
	if s.wire != nil && s.wire.expire(l, s) {
		return
	}
	if s.redirect != nil {
		s.redirect.expire(l, s)
	}
	if end := s.lifetimeEnd(); end != 0 && l.now >= end {
		s.stopAll(l, Lifetime, ErrLifetime)
		return
	}
	if d, half := s.idleLimit(); d > 0 && l.now >= s.active+d && !s.redirect.onTheWay(l, s) {
		if half {
			s.stopAll(l, HalfClosed, ErrHalfClose)
		} else {
			s.stopAll(l, Idle, ErrIdle)
		}
		return
	}
	for i := range s.dirs {
		if at := s.dirs[i].brakes; at != 0 && l.now >= at {
			l.queue(s)
			return // run sets the timer
		}
	}
	s.settle(l)
}
