//go:build linux

package conformance

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// stop: both connections come back open and usable; no byte that left the
// source is lost.
func stop() []scenario {
	borrowed := func(p *place) bool { return p.own }
	return []scenario{
		{name: "at-rest", run: stopAtRest},
		{name: "mid-stream-and-go-on", run: eachWay(stopMidStream)},
		{name: "both-ways-busy", plain: true, run: stopBothBusy},
		{name: "stalled-receiver", plain: true, jam: true, run: eachWay(stopStalled)},
		{name: "waits-for-the-receiver", plain: true, jam: true, run: eachWay(stopWaits)},
		{name: "gives-up-waiting", plain: true, clock: true, jam: true, run: eachWay(stopGivesUp)},
		{name: "after-eof-of-one-way", run: eachWay(stopAfterEOF)},
		{name: "behind-full-buffers-with-eof-waiting", plain: true, jam: true, run: eachWay(stopBeforeEOF)},
		{name: "after-the-end", plain: true, run: stopAfterEnd},
		{name: "many-at-once", plain: true, run: stopMany},
		{name: "before-anything-happened", plain: true, run: stopAtOnce},
		{name: "conns-only-when-owned-and-ended", plain: true, run: connsOnlyThen},
		{name: "relay-context", run: eachWay(stopContext), skip: borrowed},
		{name: "relay-context-over-before", plain: true, run: stopContextBefore, skip: borrowed},
		{name: "relay-context-deadline", plain: true, run: stopContextDeadline, skip: borrowed, clock: true},
	}
}

func stopAtRest(t *testing.T, p *place) {
	l := p.link(t)
	l.Start()
	l.forward().carry(0, 5000, 5000)
	l.backward().carry(0, 6000, 6000)
	res := l.Stop()
	want(t, "a to b", res.AToB.Reason, "stopped")
	want(t, "b to a", res.BToA.Reason, "stopped")
	if res.AToB.Bytes != 5000 || res.BToA.Bytes != 6000 || len(res.AToB.Undelivered)+len(res.BToA.Undelivered) != 0 {
		t.Errorf("want 5000 and 6000 bytes and none returned, have %+v", res)
	}
	l.usable()
}

// One stream through several sessions, each stopped at a moment of no
// importance, the rest handed to the next.
func stopMidStream(t *testing.T, w way) {
	const total = 12 << 20
	pump := w.pump(0, total, 50_000)
	sink := w.sink(0)
	var carried, left int64
	var rest []byte
	for range 5 {
		w.Start(w.prefetched(rest))
		sink.beyond(min(carried+rand.Int64N(total/5), total-1))
		res := w.Stop()
		end := w.end(res)
		want(t, "this way", end.Reason, "stopped")
		if err := w.check(end.Undelivered, carried+end.Bytes); err != nil {
			t.Fatalf("undelivered: %v", err)
		}
		carried += end.Bytes
		rest = end.Undelivered
		left = max(left, int64(len(rest)))
	}
	if most := w.place.engine.hold(); left > most {
		t.Errorf("%d bytes were returned, at most %d may have been held", left, most)
	}
	w.Start(w.prefetched(rest))
	pump.wait()
	sink.beyond(total)
	w.carried(total - carried)
	sink.right()
	w.Stop()
	w.usable()
}

func stopBothBusy(t *testing.T, p *place) {
	l := p.link(t)
	f, b := l.forward(), l.backward()
	l.Start()
	pf, pb := f.pump(0, 1<<40, 64<<10), b.pump(0, 1<<40, 64<<10)
	sf, sb := f.sink(0), b.sink(0)
	sf.beyond(3 << 20)
	sb.beyond(3 << 20)
	res := l.Stop()
	sf.right()
	sb.right()
	f.account(res, sf.halt(), pf.halt())
	b.account(res, sb.halt(), pb.halt())
	l.usable()
}

func stopStalled(t *testing.T, w way) {
	w.Start()
	pump := w.pump(0, far, 256<<10)
	sent := pump.blocked()
	res := w.StopNow()
	want(t, "this way", w.end(res).Reason, "stopped")
	if n := int64(len(w.end(res).Undelivered)); n > w.place.engine.hold() {
		t.Errorf("%d bytes were held, at most %d may be", n, w.place.engine.hold())
	}
	w.account(res, 0, sent)
	w.usable()
}

// What is on its way is delivered, if the receiver takes it in time.
func stopWaits(t *testing.T, w way) {
	w.Start()
	pump := w.pump(0, far, 256<<10)
	sent := pump.blocked()
	done := make(chan splice.Result, 1)
	go func() { done <- w.Stop() }()
	// Nothing more is taken from the source: there is an end to what comes.
	sink := w.sink(0)
	select {
	case res := <-done:
		if n := len(w.end(res).Undelivered); n != 0 {
			t.Errorf("%d bytes returned though the receiver took all", n)
		}
		sink.beyond(w.end(res).Bytes)
		sink.right()
		w.account(res, sink.halt(), sent)
		w.usable()
	case <-time.After(patience):
		t.Fatal("Stop doesn't return")
	}
}

func stopGivesUp(t *testing.T, w way) {
	w.Start()
	pump := w.pump(0, far, 256<<10)
	sent := pump.blocked()
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	w.account(w.stop(ctx), 0, sent)
	w.usable()
}

func stopAfterEOF(t *testing.T, w way) {
	w.Start()
	w.carry(0, 1000, 1000)
	w.finish()
	w.receiveEOF()
	eventually(t, "the end of the direction", func() bool { return w.stats().Reason.String() == "eof" })
	res := w.Stop()
	want(t, "this way", w.end(res).Reason, "eof")
	want(t, "the way back", w.back().end(res).Reason, "stopped")
	b := w.back()
	b.send(0, 1000)
	b.receiveFrom(b.in(), 0, 1000)
	if _, err := b.write(b.out(), 0, 1000, 1000); err != nil {
		t.Fatalf("write the way back: %v", err)
	}
	b.receive(0, 1000)
}

// The source has sent its FIN already, but bytes are before it.
func stopBeforeEOF(t *testing.T, w way) {
	w.Start()
	sent := w.pump(0, far, 256<<10).blocked()
	w.finish()
	res := w.StopNow()
	want(t, "this way", w.end(res).Reason, "stopped")
	w.account(res, 0, sent)
	w.receiveEOFFrom(w.in())
}

func stopAfterEnd(t *testing.T, p *place) {
	l := p.link(t)
	l.Start()
	l.forward().carry(0, 1000, 1000)
	l.forward().finish()
	l.backward().finish()
	before := l.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, _ := l.Session.Stop(ctx)
	if res.AToB.Bytes != 1000 || res.AToB.Reason != before.AToB.Reason || res.BToA.Reason != before.BToA.Reason {
		t.Errorf("Stop after the end: %+v, before %+v", res, before)
	}
}

func stopMany(t *testing.T, p *place) {
	l := p.link(t)
	l.Start()
	w := l.forward()
	pump := w.pump(0, far, 64<<10)
	sink := w.sink(0)
	sink.beyond(1 << 20)
	var wg sync.WaitGroup
	results := make([]splice.Result, 8)
	for i := range results {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			results[i], _ = l.Session.Stop(ctx)
		})
	}
	wg.Go(func() { _, _ = l.Session.Wait() })
	wg.Wait()
	res := l.Stop()
	for _, r := range results {
		if r.AToB.Bytes != res.AToB.Bytes || r.AToB.Reason != res.AToB.Reason {
			t.Errorf("one Stop says %+v, another %+v", r.AToB, res.AToB)
		}
	}
	sink.right()
	w.account(res, sink.halt(), pump.halt())
	l.usable()
}

func stopAtOnce(t *testing.T, p *place) {
	for range 20 {
		l := p.link(t)
		l.forward().send(0, 1000)
		l.Start()
		res := l.Stop()
		l.forward().account(res, 0, 1000)
		l.usable()
		l.Release()
	}
}

func connsOnlyThen(t *testing.T, p *place) {
	l := p.link(t)
	l.Start()
	if _, _, err := l.Session.Conns(); err == nil {
		t.Error("Conns of a running session")
	}
	l.Stop() // and has them back
	if _, _, err := l.Session.Conns(); err == nil {
		t.Error("Conns of a session that has none to give")
	}
	l.usable()

	other := p.link(t)
	other.Start()
	other.forward().finish()
	other.backward().finish()
	other.Wait()
	if _, _, err := other.Session.Conns(); err == nil {
		t.Error("Conns of a session that ended by itself")
	}
}

func stopContext(t *testing.T, w way) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type outcome struct {
		res splice.Result
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		res, err := splice.Relay(ctx, w.relayA, w.relayB, w.options()...)
		done <- outcome{res, err}
	}()
	pump := w.pump(0, far, 64<<10)
	sink := w.sink(0)
	sink.beyond(2 << 20)
	cancel()
	select {
	case o := <-done:
		want(t, "this way", w.end(o.res).Reason, "stopped")
		want(t, "the way back", w.back().end(o.res).Reason, "stopped")
		sink.right()
		w.account(o.res, sink.halt(), pump.halt())
		w.usable()
	case <-time.After(patience):
		t.Fatal("Relay doesn't return after the end of its context")
	}
}

func stopContextBefore(t *testing.T, p *place) {
	l := p.link(t)
	l.forward().send(0, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan splice.Result, 1)
	go func() {
		res, _ := splice.Relay(ctx, l.relayA, l.relayB, l.options()...)
		done <- res
	}()
	select {
	case res := <-done:
		l.forward().account(res, 0, 1000)
		l.usable()
	case <-time.After(patience):
		t.Fatal("Relay doesn't return though its context is over")
	}
}

func stopContextDeadline(t *testing.T, p *place) {
	l := p.link(t)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	res, _ := splice.Relay(ctx, l.relayA, l.relayB, l.options()...)
	expired(t, res, begin, short)
	want(t, "a to b", res.AToB.Reason, "stopped")
	want(t, "b to a", res.BToA.Reason, "stopped")
	l.usable()
}
