//go:build linux

package conformance

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// timeouts: IdleTimeout over both directions together, re-armed by every byte
// moved; HalfCloseTimeout with a clock of its own; MaxLifetime over all.
func timeouts() []scenario {
	return []scenario{
		{name: "idle-from-the-start", clock: true, run: idleAtOnce},
		{name: "idle-after-traffic", clock: true, plain: true, run: oneWay(idleAfterTraffic)},
		{name: "idle-rearmed-by-one-way", clock: true, plain: true, run: eachWay(idleRearmed)},
		{name: "idle-with-a-stalled-receiver", clock: true, plain: true, jam: true, run: eachWay(idleStalled)},
		{name: "half-close", clock: true, plain: true, run: eachWay(halfClose)},
		{name: "half-close-longer-than-idle", clock: true, plain: true, run: eachWay(halfCloseLonger)},
		{name: "half-close-rearmed", clock: true, plain: true, run: eachWay(halfCloseRearmed)},
		{name: "half-close-not-before-eof", clock: true, plain: true, jam: true, run: oneWay(halfCloseNotBefore)},
		{name: "half-close-zero-keeps-idle", clock: true, plain: true, run: oneWay(halfCloseZero)},
		{name: "half-close-with-a-stalled-receiver", clock: true, plain: true, jam: true, run: eachWay(halfCloseStalled)},
		{name: "lifetime-idle", clock: true, plain: true, run: lifetimeIdle},
		{name: "lifetime-busy", clock: true, run: lifetimeBusy},
		{name: "lifetime-before-idle", clock: true, plain: true, run: lifetimeBeforeIdle},
		{name: "shorter-than-a-tick", clock: true, plain: true, run: shortest},
	}
}

const (
	// short is a timeout that is to pass, long one that is not.
	short = 150 * time.Millisecond
	long  = time.Hour
	// early is by how much a clock may be read too coarsely.
	early = 5 * time.Millisecond
)

// expired checks when and how a session has ended by a timeout.
func expired(t TB, res splice.Result, since time.Time, after time.Duration) {
	t.Helper()
	if took := res.Ended.Sub(since); took < after-early {
		t.Errorf("ended after %v, %v too early", took, after-took)
	}
}

func idleAtOnce(t *testing.T, p *place) {
	l := p.link(t)
	l.Start(splice.IdleTimeout(short))
	res := l.Wait()
	expired(t, res, res.Stats.Started, short)
	want(t, "a to b", res.AToB.Reason, "idle")
	want(t, "b to a", res.BToA.Reason, "idle")
	l.afterTimeout()
}

// afterTimeout checks the connections: the caller's are as they were, the
// session's own are closed.
func (l *Link) afterTimeout() {
	l.t.Helper()
	if !l.place.own {
		l.usable()
		return
	}
	for _, c := range []net.Conn{l.A, l.B} {
		var one [1]byte
		if n, err := c.Read(one[:]); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			l.t.Errorf("want the end of a connection that the session closed, read %d bytes, %v", n, err)
		}
	}
}

func idleAfterTraffic(t *testing.T, w way) {
	const idle = 4 * short // so that the traffic is not taken for a pause
	w.Start(splice.IdleTimeout(idle))
	w.carry(0, 3<<20, 100_000)
	w.back().carry(0, 10, 10)
	res := w.Wait()
	expired(t, res, res.Stats.LastProgress, idle)
	want(t, "this way", w.end(res).Reason, "idle")
	want(t, "the way back", w.back().end(res).Reason, "idle")
	w.afterTimeout()
}

// trickle moves single bytes one way for longer than the timeout, which runs
// since then. It gives up if this machine was so busy that it paused for half
// of it.
func (w way) trickle(since time.Time, timeout time.Duration) (ok bool) {
	w.t.Helper()
	tick := time.NewTicker(timeout / 10)
	defer tick.Stop()
	begin, last := time.Now(), since
	for i := int64(0); time.Since(begin) < 3*timeout; i++ {
		<-tick.C
		_, err := w.write(w.src, i, 1, 1)
		if err == nil {
			_, err = w.read(w.dst, i, 1)
		}
		gap := time.Since(last)
		last = time.Now()
		if gap >= timeout/2 {
			return false
		}
		if err != nil {
			w.t.Fatalf("ended while bytes were moving, the last %v ago: %v; %+v", gap, err, w.Session.Stats())
		}
	}
	return true
}

// rearmed checks that a timeout that one way's traffic re-arms doesn't pass
// while there is any, and then does. A busy machine gets longer timeouts.
func (w way) rearmed(limit func(time.Duration) splice.Option, prepare func(way)) splice.Result {
	w.t.Helper()
	for timeout := 2 * short; timeout < patience/2; timeout *= 2 {
		w := w.place.link(w.t).forward().like(w)
		begin := time.Now()
		w.Start(limit(timeout))
		prepare(w)
		if w.trickle(begin, timeout) {
			res := w.Wait()
			expired(w.t, res, res.Stats.LastProgress, timeout)
			return res
		}
		w.Release()
	}
	w.t.Fatalf("this machine is too busy to keep a pace")
	return splice.Result{}
}

func idleRearmed(t *testing.T, w way) {
	res := w.rearmed(splice.IdleTimeout, func(way) {})
	want(t, "this way", w.end(res).Reason, "idle")
	want(t, "the way back", w.back().end(res).Reason, "idle")
}

// Bytes that wait for a receiver don't move.
func idleStalled(t *testing.T, w way) {
	w.Start(splice.IdleTimeout(2 * short))
	pump := w.pump(0, far, 256<<10)
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "idle")
	expired(t, res, res.Stats.LastProgress, 2*short)
	w.remainder(res, 0, pump)
}

// remainder accounts for the bytes after an end that left some under way.
func (w way) remainder(res splice.Result, from int64, pump *pump) {
	w.t.Helper()
	end := w.end(res)
	if !w.place.own {
		w.account(res, from, pump.halt())
		return
	}
	// The session has closed the connections: what it says was not delivered
	// is the stream's next part, and nothing beyond what it counts arrives.
	if err := w.check(end.Undelivered, end.Bytes); err != nil {
		w.t.Fatalf("undelivered: %v", err)
	}
	n, err := w.read(w.dst, from, 1<<40)
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		w.t.Fatalf("after %d bytes: %v", n, err)
	}
	if from+n > end.Bytes {
		w.t.Errorf("%d bytes received, %d counted", from+n, end.Bytes)
	}
}

func halfClose(t *testing.T, w way) {
	w.Start(splice.HalfCloseTimeout(short), splice.IdleTimeout(long))
	w.carry(0, 1000, 1000)
	begin := time.Now()
	w.finish()
	w.receiveEOF()
	res := w.Wait()
	expired(t, res, begin, short)
	want(t, "this way", w.end(res).Reason, "eof")
	want(t, "the way back", w.back().end(res).Reason, "half-close-timeout")
}

// The idle timeout no longer counts once one direction has ended.
func halfCloseLonger(t *testing.T, w way) {
	w.Start(splice.HalfCloseTimeout(5*short), splice.IdleTimeout(short/2))
	begin := time.Now()
	w.finish()
	w.receiveEOF()
	res := w.Wait()
	if w.end(res).Reason.String() == "idle" && res.Ended.Sub(begin) < short {
		t.Skip("this machine was too busy to send the FIN within the idle timeout")
	}
	expired(t, res, begin, 5*short)
	want(t, "this way", w.end(res).Reason, "eof")
	want(t, "the way back", w.back().end(res).Reason, "half-close-timeout")
}

func halfCloseRearmed(t *testing.T, w way) {
	res := w.rearmed(splice.HalfCloseTimeout, func(w way) {
		w.back().finish()
		w.back().receiveEOF()
	})
	want(t, "the way that went on", w.end(res).Reason, "half-close-timeout")
}

func halfCloseNotBefore(t *testing.T, w way) {
	w.Start(splice.HalfCloseTimeout(short / 10))
	select {
	case <-w.Session.Done():
		t.Fatalf("ended by the half-close timeout with both sides open: %+v", w.Session.Stats())
	case <-time.After(short):
	}
	w.carry(0, 1000, 1000)
}

func halfCloseZero(t *testing.T, w way) {
	w.Start(splice.IdleTimeout(short))
	w.finish()
	w.receiveEOF()
	res := w.Wait()
	expired(t, res, res.Stats.LastProgress, short)
	want(t, "the way back", w.back().end(res).Reason, "idle")
}

// One side has ended, the other can't get rid of its bytes.
func halfCloseStalled(t *testing.T, w way) {
	w.Start(splice.HalfCloseTimeout(2 * short))
	pump := w.pump(0, far, 256<<10)
	w.back().finish()
	w.back().receiveEOF()
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "half-close-timeout")
	want(t, "the way back", w.back().end(res).Reason, "eof")
	w.remainder(res, 0, pump)
}

func lifetimeIdle(t *testing.T, p *place) {
	l := p.link(t)
	l.Start(splice.MaxLifetime(short))
	res := l.Wait()
	expired(t, res, res.Stats.Started, short)
	want(t, "a to b", res.AToB.Reason, "lifetime")
	want(t, "b to a", res.BToA.Reason, "lifetime")
	l.afterTimeout()
}

func lifetimeBusy(t *testing.T, p *place) {
	l := p.link(t)
	f, b := l.forward(), l.backward()
	l.Start(splice.MaxLifetime(short), splice.IdleTimeout(long))
	pf, pb := f.pump(0, 1<<40, 64<<10), b.pump(0, 1<<40, 64<<10)
	sf, sb := f.sink(0), b.sink(0)
	res := l.Wait()
	expired(t, res, res.Stats.Started, short)
	want(t, "a to b", res.AToB.Reason, "lifetime")
	want(t, "b to a", res.BToA.Reason, "lifetime")
	if p.own {
		<-sf.done
		<-sb.done
	}
	for _, s := range []*sink{sf, sb} {
		s.right(io.EOF, syscall.ECONNRESET)
	}
	if p.own {
		return
	}
	f.remainder(res, sf.halt(), pf)
	b.remainder(res, sb.halt(), pb)
	l.usable()
}

func lifetimeBeforeIdle(t *testing.T, p *place) {
	l := p.link(t)
	const lifetime = 6 * short // in which a busy machine forwards a FIN
	l.Start(splice.MaxLifetime(lifetime), splice.IdleTimeout(2*lifetime), splice.HalfCloseTimeout(2*lifetime))
	l.forward().finish()
	l.forward().receiveEOF()
	res := l.Wait()
	want(t, "a to b", res.AToB.Reason, "eof")
	want(t, "b to a", res.BToA.Reason, "lifetime")
}

// The shortest timeout ends a session, it doesn't mean none.
func shortest(t *testing.T, p *place) {
	for _, o := range []splice.Option{splice.IdleTimeout(1), splice.MaxLifetime(1)} {
		l := p.link(t)
		l.Start(o)
		res := l.Wait()
		want(t, "a to b", res.AToB.Reason, "idle", "lifetime")
	}
}
