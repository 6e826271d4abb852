//go:build linux

package conformance

import (
	"testing"

	"github.com/spliced-io/spliced/splice"
)

// queued: bytes that are there before the start are delivered first, in order,
// the prefetched ones before them.
func queued() []scenario {
	return []scenario{
		{name: "in-both-sockets", run: queuedBoth},
		{name: "prefetched-first", run: eachWay(prefetchedFirst)},
		{name: "prefetched-only", run: eachWay(prefetchedOnly)},
		{name: "prefetched-then-eof", run: eachWay(prefetchedThenEOF)},
		{name: "prefetched-meets-a-stalled-receiver", plain: true, jam: true, run: eachWay(prefetchedStalled)},
		{name: "prefetched-counts-for-max-bytes", run: eachWay(prefetchedMax)},
		{name: "prefetched-returned-by-stop", plain: true, jam: true, run: eachWay(prefetchedStop)},
		{name: "eof-before", run: eachWay(eofBefore)},
		{name: "eof-before-in-both", run: eofBeforeBoth},
	}
}

const inKernel = 20_000 // bytes that fit any socket's queue

func queuedBoth(t *testing.T, p *place) {
	l := p.link(t)
	for _, w := range []way{l.forward(), l.backward()} {
		w.send(0, inKernel)
		w.arrived(inKernel)
	}
	l.Start()
	for _, w := range []way{l.forward(), l.backward()} {
		w.receive(0, inKernel)
		w.carry(inKernel, inKernel, 1000)
		w.carried(2 * inKernel)
	}
}

func prefetchedFirst(t *testing.T, w way) {
	const early = 5000
	w.send(early, inKernel)
	w.arrived(inKernel)
	w.Start(splice.Prefetched(w.Link.forward().bytes(0, early), w.Link.backward().bytes(0, early)))
	w.send(early+inKernel, 3000)
	w.receive(0, early+inKernel+3000)
	w.carried(early + inKernel + 3000)
	w.back().receive(0, early)
	w.back().carried(early)
}

func prefetchedOnly(t *testing.T, w way) {
	w.Start(w.prefetched(w.bytes(0, 1)))
	w.receive(0, 1)
	w.carried(1)
	w.back().carried(0)
}

func prefetchedThenEOF(t *testing.T, w way) {
	w.finish()
	w.Start(w.prefetched(w.bytes(0, 70_000)))
	w.receive(0, 70_000)
	w.receiveEOF()
	w.back().carry(0, 10_000, 10_000)
	w.back().finish()
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "eof")
	if w.end(res).Bytes != 70_000 || w.back().end(res).Bytes != 10_000 {
		t.Errorf("want 70000 and 10000 bytes, have %+v", res)
	}
}

// More than the kernel's buffers hold: the rest waits, nothing is lost.
func prefetchedStalled(t *testing.T, w way) {
	const early = 6 << 20
	w.Start(w.prefetched(w.bytes(0, early)))
	w.send(early, inKernel)
	w.finish()
	if have := settled(t, "the stalled direction", func() int64 { return w.stats().Bytes }); have >= early {
		t.Fatalf("%d bytes counted as delivered to a receiver that doesn't read", have)
	}
	w.receive(0, early+inKernel)
	w.receiveEOF()
}

func prefetchedMax(t *testing.T, w way) {
	w.send(5000, inKernel)
	w.arrived(inKernel)
	w.Start(w.prefetched(w.bytes(0, 5000)), w.max(3000))
	w.receive(0, 3000)
	eventually(t, "the end of the direction", func() bool { return w.stats().Reason.String() == "max" })
	res := w.Stop()
	if end := w.end(res); end.Bytes != 3000 || len(end.Undelivered) != 2000 {
		t.Fatalf("want 3000 bytes delivered and 2000 returned, have %d and %d", end.Bytes, len(end.Undelivered))
	}
	w.account(res, 3000, 5000+inKernel)
	w.usable()
}

func prefetchedStop(t *testing.T, w way) {
	const early = 6 << 20
	w.send(early, inKernel)
	w.Start(w.prefetched(w.bytes(0, early)))
	settled(t, "the stalled direction", func() int64 { return w.stats().Bytes })
	res := w.StopNow()
	w.account(res, 0, early+inKernel)
	w.usable()
}

func eofBefore(t *testing.T, w way) {
	w.send(0, inKernel)
	w.finish()
	w.arrived(inKernel)
	w.Start()
	w.receive(0, inKernel)
	w.receiveEOF()
	w.back().carry(0, inKernel, inKernel)
	w.back().finish()
	w.back().receiveEOF()
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "eof")
	want(t, "the way back", w.back().end(res).Reason, "eof")
}

func eofBeforeBoth(t *testing.T, p *place) {
	l := p.link(t)
	l.forward().finish()
	l.backward().finish()
	l.Start()
	l.forward().receiveEOF()
	l.backward().receiveEOF()
	res := l.Wait()
	want(t, "a to b", res.AToB.Reason, "eof")
	want(t, "b to a", res.BToA.Reason, "eof")
	if res.AToB.Bytes != 0 || res.BToA.Bytes != 0 {
		t.Errorf("bytes out of nothing: %+v", res)
	}
}
