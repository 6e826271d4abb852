package engine

import (
	"errors"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
)

const (
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
	// The pauses between attempts double; after wireAttempts the pair stays
	// where it is.
	wirePause    = 20 * time.Millisecond
	wireAttempts = 10
	// wirePoll is the distance of looks for a plane that is being opened.
	wirePoll = 5 * time.Millisecond
)

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

// halted says whether nothing may be read from end i for a moment: what the other
// socket has not sent keeps the pair from being switched.
func (w *wiring) halted(i int) bool {
	return w != nil && w.phase == wireSwitching && w.window > wire.WindowModest && !w.pair.Learned(i)
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
	default:
		w.withdraw(l, s, notSwitched(err))
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

// notSwitched is why a pair stays with its sockets, by what Switch says.
func notSwitched(err error) wire.Refusal {
	switch err {
	case syscall.ENOTCONN:
		return wire.Ended
	case syscall.EHOSTUNREACH:
		return wire.Spent
	case syscall.EMSGSIZE:
		return wire.Divided
	case syscall.ENODEV:
		return wire.OwnRoute
	case syscall.EKEYREJECTED:
		return wire.Options
	default:
		return wire.Broken
	}
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
