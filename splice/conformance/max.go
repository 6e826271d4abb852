//go:build linux

package conformance

import (
	"fmt"
	"testing"

	"github.com/spliced-io/spliced/splice"
)

// maxBytes: exactly that many cross; the next byte stays readable on the
// source; both connections stay open and usable.
func maxBytes() []scenario {
	s := []scenario{
		{name: "source-sends-no-more", run: eachWay(maxExactly)},
		{name: "eof-before", run: eachWay(maxEOFBefore)},
		{name: "eof-right-behind", run: eachWay(maxEOFBehind)},
		{name: "stalled-receiver", plain: true, jam: true, run: eachWay(maxStalled)},
		{name: "other-way-goes-on", run: eachWay(maxOtherWay)},
		{name: "both-ways", run: maxBoth},
		{name: "in-steps", run: eachWay(maxSteps)},
		{name: "byte-by-byte", plain: true, run: eachWay(maxByteByByte)},
	}
	for _, n := range []struct{ max, sent int64 }{
		{1, 2}, {197, 251}, {4096, 4097}, {32117, 1 << 17}, {1 << 20, 1<<20 + 1}, {5<<20 + 100, 7 << 20},
	} {
		s = append(s, scenario{
			name: fmt.Sprintf("%d-of-%d", n.max, n.sent),
			run:  eachWay(func(t *testing.T, w way) { maxOf(t, w, n.max, n.sent) }),
		})
	}
	return s
}

func maxOf(t *testing.T, w way, limit, sent int64) {
	w.Start(w.max(limit))
	pump := w.pump(0, sent, 64<<10)
	w.receive(0, limit)
	w.reached(limit)
	// Not one more: nothing waits for the receiver.
	if n, err := unread(w.dst); err != nil || n != 0 {
		t.Errorf("%d bytes beyond the limit, %v", n, err)
	}
	res := w.Stop()
	want(t, "this way", w.end(res).Reason, "max")
	want(t, "the way back", w.back().end(res).Reason, "stopped")
	if have := w.end(res); have.Bytes != limit || len(have.Undelivered) != 0 {
		t.Errorf("want %d bytes and none returned, have %d and %d", limit, have.Bytes, len(have.Undelivered))
	}
	w.account(res, limit, sent)
	pump.wait()
	w.usable()
}

// reached waits for the end of the direction by its limit.
func (w way) reached(limit int64) {
	w.t.Helper()
	eventually(w.t, "the end of the direction", func() bool { return w.stats().Reason.String() != "running" })
	want(w.t, "this way", w.stats().Reason, "max")
	if have := w.stats().Bytes; have != limit {
		w.t.Errorf("%d bytes counted, the limit is %d", have, limit)
	}
}

func maxExactly(t *testing.T, w way) {
	w.Start(w.max(5000))
	w.send(0, 5000)
	w.receive(0, 5000)
	w.reached(5000)
	w.Stop()
	w.usable()
}

func maxEOFBefore(t *testing.T, w way) {
	w.Start(w.max(5000))
	w.send(0, 4999)
	w.finish()
	w.receive(0, 4999)
	w.receiveEOF()
	eventually(t, "the end of the direction", func() bool { return w.stats().Reason.String() != "running" })
	want(t, "this way", w.stats().Reason, "eof")
}

// The FIN is behind the limit: it is the source's, like any byte there.
func maxEOFBehind(t *testing.T, w way) {
	w.send(0, 5003)
	w.finish()
	w.arrived(5003)
	w.Start(w.max(5000))
	w.receive(0, 5000)
	w.reached(5000)
	res := w.Stop()
	w.account(res, 5000, 5003)
	w.receiveEOFFrom(w.in())
	// The receiver's stream is still open.
	if _, err := w.write(w.out(), 5003, 100, 100); err != nil {
		t.Fatalf("write behind the limit: %v", err)
	}
	w.receive(5003, 100)
}

func maxStalled(t *testing.T, w way) {
	const limit = 8 << 20
	w.Start(w.max(limit))
	pump := w.pump(0, limit+100_000, 256<<10)
	w.stalled(limit)
	w.receive(0, limit)
	w.reached(limit)
	res := w.Stop()
	w.account(res, limit, limit+100_000)
	pump.wait()
	w.usable()
}

func maxOtherWay(t *testing.T, w way) {
	w.Start(w.max(100))
	w.send(0, 200)
	w.receive(0, 100)
	w.reached(100)
	w.back().carry(0, 3<<20, 100_000)
	w.back().finish()
	w.back().receiveEOF()
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "max")
	want(t, "the way back", w.back().end(res).Reason, "eof")
	if w.place.own {
		return // the session has closed them
	}
	w.account(res, 100, 200)
}

func maxBoth(t *testing.T, p *place) {
	l := p.link(t)
	f, b := l.forward(), l.backward()
	l.Start(splice.MaxBytes(70_000, 1_000_000))
	pf, pb := f.pump(0, 100_000, 10_000), b.pump(0, 1_100_000, 10_000)
	f.receive(0, 70_000)
	b.receive(0, 1_000_000)
	res := l.Wait()
	want(t, "a to b", res.AToB.Reason, "max")
	want(t, "b to a", res.BToA.Reason, "max")
	if res.AToB.Bytes != 70_000 || res.BToA.Bytes != 1_000_000 {
		t.Errorf("want 70000 and 1000000 bytes, have %+v", res)
	}
	if p.own {
		return // the session has closed them
	}
	f.account(res, 70_000, 100_000)
	b.account(res, 1_000_000, 1_100_000)
	pf.wait()
	pb.wait()
	l.usable()
}

// One stream through many sessions, each with its own limit.
func maxSteps(t *testing.T, w way) {
	const total = 600_000
	pump := w.pump(0, total, 7000)
	var at int64
	for step := int64(1); at < total; step *= 3 {
		n := min(step, total-at)
		w.Start(w.max(n))
		w.receive(at, n)
		w.reached(n)
		res := w.Stop()
		if left := len(w.end(res).Undelivered); left != 0 {
			t.Fatalf("%d bytes returned after a limit", left)
		}
		at += n
	}
	pump.wait()
	w.usable()
}

func maxByteByByte(t *testing.T, w way) {
	const limit = 129
	w.Start(w.max(limit))
	for i := range int64(limit + 1) {
		w.send(i, 1)
		if i < limit {
			w.receive(i, 1)
		}
	}
	w.reached(limit)
	w.account(w.Stop(), limit, limit+1)
	w.usable()
}
