package engine

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
)

const (
	// A session that was asked for this engine is handed over once it has moved so
	// much, or is so old. Others are mostly an exchange and its end: entries, probes
	// and windows for them cost a third of their rate, and come too late.
	wireSoonBytes = 64 << 10
	wireSoonAge   = 3 * time.Millisecond
	// wireSettle is how long the sockets stay after they have become needless: a
	// packet that was past the program by then has reached its socket (an RCU
	// grace period, with room to spare).
	wireSettle = 30 * time.Millisecond
	// wireSeen is how long an attempt waits for packets of both sides at most,
	// with some round trips more.
	wireSeen = 100 * time.Millisecond
	// wireFree is how long an attempt goes on with modest windows, and then with
	// small ones, with a round trip more, before they are closed.
	wireFree = 5 * time.Millisecond
	// wireMost is how long the windows of the first attempt stay closed at most
	// once there is little left to deliver, with some round trips more; later ones
	// get up to wireMostLast. wireLight, in bytes, is little; to get there takes
	// at most wireDrain, as long as it becomes less by wireLess in that time: the
	// receiver has enough to read meanwhile, however slow it is, and what is let in
	// again would have to be delivered before the next attempt.
	wireMost     = 30 * time.Millisecond
	wireMostLast = 200 * time.Millisecond
	wireLight    = 512 << 10
	wireLess     = 64 << 10
	wireDrain    = 5 * time.Second
	// wireDrainMost is the greatest distance of looks at what the sockets still
	// have to deliver.
	wireDrainMost = 50 * time.Millisecond
	// The pauses between attempts double; after wireAttempts the pair stays
	// where it is.
	wirePause    = 20 * time.Millisecond
	wireAttempts = 10
	// wirePoll is the distance of looks for a plane that is being opened.
	wirePoll = 5 * time.Millisecond
)

// ErrEndedByHand means that somebody has ended a spliced pair from outside, as
// spliced flows --end does. Both sides got a RST.
var ErrEndedByHand = errors.New("ended by hand")

// ErrHandOver means that a pair was lost at its hand-over to the program: what
// its sockets and the program knew did not fit. Both sides got a RST.
var ErrHandOver = errors.New("hand-over failed")

type wirePhase uint8

const (
	wireWaiting   wirePhase = iota // not worth it yet
	wireWatching                   // in the table; packets of both sides are to be seen
	wireSwitching                  // to be switched when each has room for what the other may send
	wireDraining                   // switched; the sockets still have something to deliver
	wireLeaving                    // spliced; the sockets are still there
	wireOn                         // spliced
	wireReturning                  // spliced, to be taken back when it is at rest
	wireOff                        // not to be spliced
)

// A wiring is a session's way to the engine wire. Its loop owns it.
type wiring struct {
	policy WirePolicy
	asked  bool      // for this engine, by name
	from   *Acceptor // nil: the connections are the caller's
	pair   *wire.Pair
	phase  wirePhase
	at     time.Duration // loop clock: the next look; 0 is none
	began  time.Duration // loop clock: of the phase
	window wire.Window
	closed time.Duration // reactor clock: of when the window was set
	fixed  bool          // the receive buffers, before there is a pair
	halts  [2]bool       // at the last look
	dry    time.Duration // loop clock: of when there was enough to deliver, last
	left   int           // to deliver, then
	most   time.Duration // bounds the current attempt
	look   time.Duration // to the next look, while draining
	pause  time.Duration
	base   [2]int64  // bytes delivered before the switch
	before [2]uint32 // the choices before it
	back   takingBack
	stats  WireStats

	doubt doubt

	onSockets func(held bool) // nil: nobody asks
	bare      bool            // it was told that there are none
}

// wireFor returns the wiring of a session to be, nil for none.
func wireFor(k Kind, policy WirePolicy, limits Limits) *wiring {
	switch {
	case k == Wire:
		policy = WirePolicy{
			Upgrade: true, AfterBytes: wireSoonBytes, AfterAge: wireSoonAge,
			Instance: policy.Instance, Root: policy.Root, settle: policy.settle,
		}
	case k != Auto || !policy.Upgrade:
		return nil
	default:
		if policy.AfterBytes == 0 {
			policy.AfterBytes = WireAfterBytes
		}
		if policy.AfterAge == 0 {
			policy.AfterAge = WireAfterAge
		}
	}
	if policy.settle == 0 {
		policy.settle = wireSettle
	}
	w := &wiring{policy: policy, asked: k == Wire, most: wireMost, pause: wirePause}
	if limits.braked() {
		w.refuse(wire.Braked)
	}
	return w
}

// clamp bounds the segments that the b side will send to what a takes.
func (w *wiring) clamp(a, b int) {
	info, err := sys.ReadTCPInfo(a)
	if err != nil || w.phase == wireOff {
		return // a unix socket
	}
	mss := int(info.SendMSS)
	if info.Options&sys.TCPTimestamps != 0 {
		mss += 12
	}
	_ = sys.SetMaxSegment(b, mss) // a unix socket; too small a value: refused later
}

// leastSegment is the smallest size that a listener is made to announce: an odd
// server must not make all connections slow.
const leastSegment = 1000

// fit has a listener tell clients from now on to send segments of at most so many
// bytes: those of connections to come fit the way to the server.
func (l *loop) fit(a *Acceptor, mss int) {
	if l.ear(a) == nil || mss < leastSegment {
		return // the listener may be closed
	}
	_ = sys.SetMaxSegment(a.spec.FD, mss) // refused to MPTCP: then they are not spliced
}

// carried says whether packets are spliced, so that the sockets are not to be
// touched.
func (w *wiring) carried() bool {
	return w != nil && (w.phase == wireLeaving || w.phase == wireOn || w.phase == wireReturning)
}

// draining says that the sockets are to deliver what they have, whatever happens.
func (w *wiring) draining() bool { return w != nil && w.phase == wireDraining }

// halted says whether nothing may be read from end i for a moment: what the other
// socket has not sent keeps the pair from being switched.
func (w *wiring) halted(i int) bool {
	return w != nil && w.phase == wireSwitching && w.window > wire.WindowModest && !w.pair.Learned(i)
}

func (w *wiring) refuse(why wire.Refusal) {
	w.phase, w.at = wireOff, 0
	w.stats.Refused = WhyWireNotTCP + Why(why-wire.NotTCP)
}

// step does what is next. The directions have just moved what they could.
func (w *wiring) step(l *loop, s *Session) {
	if w.phase == wireOff || s.over || s.dial != nil {
		return
	}
	if w.phase == wireDraining && (s.dirs[0].ended() || s.dirs[1].ended()) {
		w.lost(s)
		return
	}
	if w.phase < wireDraining && (s.stopping || s.dirs[0].ended() || s.dirs[1].ended() || s.ends[0].hangup || s.ends[1].hangup) {
		if w.phase == wireWaiting && !w.asked {
			w.phase, w.at = wireOff, 0 // over before it was worth it: nothing was refused
			return
		}
		w.withdraw(l, s, wire.Ended)
		return
	}
	switch w.phase {
	case wireWaiting:
		w.consider(l, s)
	case wireWatching:
		if l.now >= w.at {
			w.begin(l, s)
		}
	case wireSwitching:
		w.try(l, s)
	case wireDraining:
		if l.now >= w.at {
			w.drain(l, s)
		}
	case wireLeaving:
		if l.now >= w.at {
			w.leave(l, s)
		}
	}
	w.goOn(l, s)
	w.publish(s)
}

func (w *wiring) publish(s *Session) {
	if old := s.wireStats.Load(); old == nil || *old != w.stats {
		st := w.stats
		s.wireStats.Store(&st)
	}
}

// withdraw gives up before the switch.
func (w *wiring) withdraw(l *loop, s *Session, why wire.Refusal) {
	if w.pair != nil {
		w.bound(l, wire.WindowOpen)
		w.pair.Withdraw()
		w.pair = nil
	}
	w.fix(s, false)
	w.refuse(why)
	w.publish(s)
}

// worth says whether a pair is to be handed over, and when to look again.
func (w *wiring) worth(l *loop, s *Session) bool {
	age := l.now - s.startedAt
	if s.dirs[0].out.Load()+s.dirs[1].out.Load() >= w.policy.AfterBytes || age >= w.policy.AfterAge {
		return true
	}
	w.at = s.startedAt + w.policy.AfterAge
	return false
}

// consider enters the pair into the table.
func (w *wiring) consider(l *loop, s *Session) {
	if l.now < w.at && s.dirs[0].out.Load()+s.dirs[1].out.Load() < w.policy.AfterBytes {
		return
	}
	if !w.worth(l, s) {
		return
	}
	if !w.room(s) {
		w.fix(s, false)
		w.refuse(wire.Limited)
		return
	}
	plane, err := l.reactor.wire.get(l.reactor, w.policy.config())
	if err != nil {
		w.fix(s, false)
		w.refuse(wire.Denied)
		return
	}
	if plane == nil {
		w.wait(l, s)
		return
	}
	pair, why, err := plane.Consider(s.ends[0].fd, s.ends[1].fd, func() {
		l.post(command{what: wireNews, s: s})
	})
	if err == wire.ErrPending || err == wire.ErrClosed { // the next look opens another plane
		w.wait(l, s)
		return
	}
	if why != 0 {
		w.fix(s, false)
		w.refuse(why)
		var size *wire.SegmentError
		if errors.As(err, &size) && size.Side == 0 && w.from != nil {
			l.fit(w.from, size.Takes)
		}
		return
	}
	w.pair, w.fixed = pair, false
	w.attempt(l, 0)
}

// wait looks for the plane again in a moment. Meanwhile the sockets take no more than they have room
// for now: what they hold has to be delivered before the switch, and it would be megabytes.
func (w *wiring) wait(l *loop, s *Session) {
	w.at = l.now + wirePoll
	w.fix(s, true)
}

// fix keeps the kernel from making the receive buffers larger, until there is a pair that
// does so.
func (w *wiring) fix(s *Session, on bool) {
	if w.fixed == on {
		return
	}
	w.fixed = on
	for i := range s.ends {
		_ = sys.FixReceiveBuffer(s.ends[i].fd, on) // a unix socket's are what they are
	}
}

// attempt begins one, after a pause.
func (w *wiring) attempt(l *loop, pause time.Duration) {
	w.phase, w.at = wireWatching, l.now+pause+time.Millisecond
	w.began = w.at
	w.bound(l, wire.WindowModest)
}

// begin waits for packets of both sides.
func (w *wiring) begin(l *loop, s *Session) {
	if w.pair.Seen() {
		w.phase, w.began = wireSwitching, l.now
		w.try(l, s)
		return
	}
	if l.now-w.began >= wireSeen+4*w.pair.RTT() {
		w.fail(l, s, wire.Unseen)
		return
	}
	w.at = l.now + time.Millisecond
}

// held is what is between the sockets.
func (s *Session) held() [2]int { return [2]int{s.dirs[0].held(), s.dirs[1].held()} }

// learn also has those go on that were halted for it.
func (w *wiring) learn(l *loop, s *Session) error {
	err := w.pair.Learn(s.held())
	for i := range w.halts {
		if w.halts[i] && !w.halted(i) {
			l.queue(s)
		}
		w.halts[i] = w.halted(i)
	}
	return err
}

// try switches the pair, if it can be switched now.
func (w *wiring) try(l *loop, s *Session) {
	age, rtt := l.now-w.began, w.pair.RTT()
	if !w.room(s) {
		w.withdraw(l, s, wire.Limited)
		return
	}
	err := w.learn(l, s)
	if err == nil {
		idle := age >= wireFree+rtt && s.held() == [2]int{} && w.pair.Idle()
		err = w.pair.Switch(l.now, idle)
	}
	switch err {
	case nil:
		w.switched(l, s)
		return
	case syscall.EAGAIN, syscall.EOVERFLOW:
	case syscall.ENOTCONN:
		w.withdraw(l, s, wire.Ended)
		return
	case syscall.EHOSTUNREACH:
		w.withdraw(l, s, wire.Spent)
		return
	case syscall.ENODEV:
		w.withdraw(l, s, wire.OwnRoute)
		return
	case syscall.EKEYREJECTED:
		w.withdraw(l, s, wire.Options)
		return
	default:
		w.withdraw(l, s, wire.Broken)
		return
	}
	switch {
	case age < wireFree+rtt:
	case age < 2*(wireFree+rtt):
		w.bound(l, wire.WindowSqueezed)
	default:
		if w.window != wire.WindowClosed {
			w.bound(l, wire.WindowClosed)
			w.dry, w.left = l.now, w.pair.Backlog()
		}
		if n := w.pair.Backlog(); n > wireLight && n <= w.left-wireLess && age < wireDrain {
			w.dry, w.left = l.now, n // it is being delivered: nobody waits
		}
		if l.now-w.dry >= w.most+4*rtt {
			w.fail(l, s, wire.Busy)
			return
		}
	}
	w.at = l.now + time.Millisecond
}

// bound sets the windows.
func (w *wiring) bound(l *loop, to wire.Window) {
	if to == w.window {
		return
	}
	now := l.reactor.clock()
	if w.window == wire.WindowClosed {
		w.stats.Closed += now - w.closed
	}
	w.window, w.closed = to, now
	w.pair.Bound(to)
}

// fail ends an attempt; why is the reason if it was the last.
func (w *wiring) fail(l *loop, s *Session, why wire.Refusal) {
	w.stats.Attempts++
	if why == wire.Unseen {
		w.stats.Unseen++
	}
	if w.stats.Attempts >= wireAttempts {
		w.withdraw(l, s, why)
		return
	}
	w.bound(l, wire.WindowOpen)
	w.attempt(l, w.pause)
	w.pair.Probe() // a peer answers only so many in a second
	w.pause *= 2
	w.most = min(2*w.most, wireMostLast)
	l.queue(s) // what was halted
}

// switched: data goes across now.
func (w *wiring) switched(l *loop, s *Session) {
	undelivered, err := w.pair.Undelivered(s.held())
	if w.window == wire.WindowClosed {
		w.stats.Closed += l.reactor.clock() - w.closed
	}
	w.stats.Attempts++
	w.stats.Switched = true
	w.phase, w.look = wireDraining, time.Millisecond
	if err != nil {
		w.lose(l, s, err)
		return
	}
	for i := range s.dirs {
		w.base[i] = s.dirs[i].out.Load() - undelivered[i]
		w.before[i] = s.dirs[i].choice.view.Load()
	}
	s.wired.Store(newWired(w.pair, w.base))
	w.publish(s)
	w.drain(l, s)
	l.queue(s) // what was halted
}

// drain waits for the sockets to have nothing left to deliver.
func (w *wiring) drain(l *loop, s *Session) {
	drained, err := w.pair.Drained()
	if err == nil && drained && s.held() == [2]int{} {
		err = w.pair.Settle(w.meta(s))
	} else if err == nil && w.back.by != 0 && l.now >= w.back.by {
		s.stopAll(l, Stopped, ErrStopped) // with a RST to both
		return
	} else if err == nil {
		w.at = l.now + w.look
		w.look = min(2*w.look, wireDrainMost)
		return
	}
	if err != nil {
		w.lose(l, s, err)
		return
	}
	for i := range s.dirs {
		s.dirs[i].choice.view.Store(uint32(Wire)<<8 | uint32(WhyHandedOver))
	}
	w.phase, w.at = wireLeaving, l.now+w.policy.settle
}

// lost: the connections have ended while the sockets had something to deliver.
// What they do about it may not be enough: a side may have moved on.
func (w *wiring) lost(s *Session) {
	w.phase, w.at = wireOff, 0
	w.pair.Abort()
	s.wired.Store(nil)
	w.publish(s)
}

// lose ends a session whose two sides don't fit any more.
func (w *wiring) lose(l *loop, s *Session, err error) {
	err = fmt.Errorf("%w: %w", ErrHandOver, err)
	w.stats.Lost = true
	w.cut(l, s)
	for i := range s.ends {
		s.ends[i].reset()
	}
	s.stopAll(l, Failed, err)
}

// leave gives up the sockets.
func (w *wiring) leave(l *loop, s *Session) {
	if drained, err := w.pair.Drained(); err != nil {
		w.lose(l, s, err)
		return
	} else if !drained {
		// It came late: the sockets deliver it.
		w.stats.Late++
		w.pair.Unsettle()
		w.phase, w.look = wireDraining, time.Millisecond
		w.at = l.now + w.look
		for i := range s.ends {
			s.ends[i].readable = true
		}
		l.queue(s)
		return
	}
	w.pair.Dissolve()
	for i := range s.ends {
		e := &s.ends[i]
		l.drop(e)
		_ = sys.EpollDel(l.ep, e.fd)
		_ = sys.Close(e.fd)
		e.fd = -1
	}
	l.reactor.release(s)
	s.ends[0].cookie = 0
	w.phase, w.at = wireOn, 0
	s.wired.Load().alone.Store(true)
	w.holds(s, false)
	w.refresh(l, s) // what was reported so far
}

// holds tells whether the session has sockets. One that will want some again for its
// limit of bytes keeps their place.
func (w *wiring) holds(s *Session, sockets bool) {
	if w.onSockets == nil || w.bare != sockets || s.dirs[0].max > 0 || s.dirs[1].max > 0 {
		return
	}
	w.bare = !sockets
	w.onSockets(sockets)
}

// refresh takes over what the program has counted, and ends what has ended.
func (w *wiring) refresh(l *loop, s *Session) {
	if w.back.building {
		return // all is counted, and the entries may be gone
	}
	v, err := w.pair.Look()
	if err != nil {
		// Somebody took the entries out.
		w.phase = wireOff
		s.stopAll(l, Failed, fmt.Errorf("look up the spliced flow: %w", err))
		return
	}
	w.count(s, &v)
	if w.phase == wireOn {
		w.watchLimits(s, &v)
	}
	if w.phase == wireOn {
		w.question(l, &v)
	}
	if wired := s.wired.Load(); wired != nil && v.LastMoved > 0 {
		if moved := s.startedAt + wired.at(v.LastMoved).Sub(s.started); moved > s.active {
			s.active = moved
			s.progress.Store(int64(moved))
		}
	}
	if w.phase == wireLeaving {
		return // the sockets have to go first
	}
	for i := range s.dirs {
		if v.FIN[i] {
			s.dirs[i].finish(l, EOF, nil)
		}
	}
	for i := range s.dirs {
		if v.Reset[i] {
			s.dirs[i].finish(l, ResetBySource, syscall.ECONNRESET)
			s.dirs[1-i].finish(l, ResetByDrain, syscall.ECONNRESET)
		}
	}
	if v.Ended && !s.ended() {
		w.stats.EndedByHand = true
		s.stopAll(l, Stopped, ErrEndedByHand)
		return
	}
	if s.ended() {
		w.phase = wireOff
		w.pair.Finish()
		s.wired.Store(nil)
	}
	w.goOn(l, s)
	w.publish(s)
	s.settle(l)
}

func (w *wiring) count(s *Session, v *wire.View) {
	for i := range s.dirs {
		if n := w.base[i] + v.Delivered[i]; n > s.dirs[i].out.Load() {
			s.dirs[i].out.Store(n)
		}
	}
	w.stats.take(v)
}

// cut ends a spliced flow, with a RST to both sides. It does nothing for a
// session that is not spliced.
func (w *wiring) cut(l *loop, s *Session) {
	if !w.carried() && !w.draining() {
		if w.pair != nil && w.phase != wireOff {
			w.withdraw(l, s, wire.Ended)
		}
		return
	}
	if v, err := w.pair.Look(); err == nil {
		w.count(s, &v)
		for i := range s.dirs {
			if v.FIN[i] {
				s.dirs[i].finish(l, EOF, nil)
			}
		}
	}
	leaving := w.phase == wireLeaving || w.phase == wireDraining
	w.phase = wireOff
	w.publish(s)
	w.pair.Abort()
	s.wired.Store(nil)
	if leaving {
		w.pair.Dissolve()
		for i := range s.ends {
			s.ends[i].err = syscall.ECONNABORTED
		}
	}
}

// wired is what others than the loop need of a spliced session.
type wired struct {
	pair  *wire.Pair
	alone atomic.Bool // the pair has no sockets, and needs none
	base  [2]int64
	epoch time.Time // the same moment by two clocks
	mono  int64
}

func newWired(pair *wire.Pair, base [2]int64) *wired {
	return &wired{pair: pair, base: base, epoch: time.Now(), mono: sys.Monotonic()}
}

// at is the time of a moment that the program has noted: always the same for the same.
func (w *wired) at(mono int64) time.Time { return w.epoch.Add(time.Duration(mono - w.mono)) }

// live brings st up to date.
func (w *wired) live(s *Session, st *Stats) {
	v, err := w.pair.Look()
	if err != nil {
		return // it has just ended, or the loop will find out
	}
	st.AToB.Bytes = max(st.AToB.Bytes, w.base[0]+v.Delivered[0])
	st.BToA.Bytes = max(st.BToA.Bytes, w.base[1]+v.Delivered[1])
	if moved := w.at(v.LastMoved); v.LastMoved > 0 && moved.After(st.LastProgress) {
		st.LastProgress = moved
	}
	if st.Wire != nil {
		full := *st.Wire
		full.take(&v)
		if seen := max(v.Flows[0].LastSeen, v.Flows[1].LastSeen); seen > 0 {
			full.LastSeen = w.at(int64(seen))
		}
		st.Wire = &full
	}
}

func (w *WireStats) take(v *wire.View) {
	for i, f := range v.Flows {
		w.Packets[i], w.Retransmits[i] = f.Packets, f.Retransmits
		w.Errors[i], w.TooBig[i] = f.Errors, f.TooBig
		w.Delivered[i] = v.Delivered[i]
	}
}

func (p WirePolicy) config() wire.Config { return wire.Config{Instance: p.Instance, Root: p.Root} }

// wireNews: the program has seen a FIN acknowledged, or a RST.
func (s *Session) wireNews(l *loop) {
	w := s.wire
	switch {
	case w.carried():
		w.refresh(l, s)
	case w.draining():
		w.drain(l, s)
		s.settle(l)
	}
}

// expire does what is due, and says whether that was all.
func (w *wiring) expire(l *loop, s *Session) bool {
	if w.at != 0 && l.now >= w.at {
		w.step(l, s)
		if s.over || s.ended() {
			return true
		}
	}
	if w.carried() {
		w.refresh(l, s) // the idle limit counts from what the program has seen
	}
	return s.over || s.ended()
}
