//go:build linux

package conformance

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/splice"
)

// reset: what was received from the side that went is delivered; then the
// other side gets a reset, not a clean end.
func reset() []scenario {
	return []scenario{
		{name: "source-at-rest", plain: true, run: eachWay(resetAtRest)},
		{name: "source-behind-queued-bytes", plain: true, run: eachWay(resetBehindQueued)},
		{name: "source-mid-stream", plain: true, run: eachWay(resetMidStream)},
		{name: "source-behind-a-stalled-receiver", plain: true, jam: true, run: eachWay(resetBehindStalled)},
		{name: "source-behind-prefetched", plain: true, run: eachWay(resetBehindPrefetched)},
		{name: "source-after-its-eof", plain: true, run: eachWay(resetAfterOwnEOF)},
		{
			// A unix socket is reset by bytes it has not read, and there can't be any.
			name: "source-after-the-others-eof", plain: true, run: eachWay(resetAfterOtherEOF),
			skip: func(p *place) bool { return p.network.A == Unix },
		},
		{name: "drain-mid-stream", plain: true, run: eachWay(resetByDrain)},
		{name: "drain-stalled", plain: true, jam: true, run: eachWay(resetByStalledDrain)},
		{name: "both", plain: true, run: resetBoth},
	}
}

func resetAtRest(t *testing.T, w way) {
	w.Start()
	w.carry(0, 10_000, 1000)
	w.back().carry(0, 20_000, 1000)
	extra := w.abort(20_000)
	w.receiveReset()
	res := w.Wait()
	w.wantReset(res)
	if w.end(res).Bytes != 10_000 || w.back().end(res).Bytes != 20_000+extra {
		t.Errorf("want 10000 and %d bytes, have %+v", 20_000+extra, res)
	}
}

// The receiver doesn't read until the reset has come to the relay.
func resetBehindQueued(t *testing.T, w way) {
	w.Start()
	w.send(0, inKernel)
	w.acknowledged()
	w.abort(0)
	eventually(t, "the reset at the receiver or the end", func() bool {
		return w.stats().Reason.String() != "running"
	})
	w.receive(0, inKernel)
	w.receiveReset()
	w.wantReset(w.Wait())
}

func resetMidStream(t *testing.T, w way) {
	w.Start()
	sink := w.sink(0)
	pump := w.pump(0, far, 64<<10)
	sink.beyond(4 << 20)
	sure := w.sure(pump)
	w.abort(0)
	<-pump.done
	<-sink.done
	ends := []error{syscall.ECONNRESET}
	if !w.outLeg().tcp() {
		ends = append(ends, io.EOF)
	}
	sink.right(ends...)
	if have := sink.received.Load(); have < sure {
		t.Errorf("%d bytes were at the relay before the reset, only %d delivered", sure, have)
	}
	w.wantReset(w.Wait())
}

func resetBehindStalled(t *testing.T, w way) {
	w.Start()
	pump := w.pump(0, far, 256<<10)
	pump.blocked()
	settled(t, "the sender's queue", func() int64 { return w.sure(pump) })
	sure := w.sure(pump)
	w.abort(0)
	if have := w.receiveUntilReset(0); have < sure {
		t.Errorf("%d bytes were at the relay before the reset, only %d delivered", sure, have)
	}
	w.wantReset(w.Wait())
}

func resetBehindPrefetched(t *testing.T, w way) {
	const early = 6 << 20
	w.Start(w.prefetched(w.bytes(0, early)))
	w.send(early, inKernel)
	w.acknowledged()
	w.abort(0)
	w.receive(0, early+inKernel)
	w.receiveReset()
	w.wantReset(w.Wait())
}

// The source has shut down its side cleanly, then goes with a reset.
func resetAfterOwnEOF(t *testing.T, w way) {
	w.Start()
	w.send(0, inKernel)
	w.finish()
	w.receive(0, inKernel)
	w.receiveEOF()
	eventually(t, "the end of the direction", func() bool { return w.stats().Reason.String() == "eof" })
	w.abort(0)
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "eof")
	want(t, "the way back", w.back().end(res).Reason, "reset-by-drain")
}

// The other side has shut down; the reset must come through nevertheless.
func resetAfterOtherEOF(t *testing.T, w way) {
	w.Start()
	w.back().finish()
	w.back().receiveEOF()
	w.carry(0, 100_000, 10_000)
	w.abort(0)
	w.receiveReset()
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "reset-by-source")
	want(t, "the way back", w.back().end(res).Reason, "eof")
	if w.end(res).Bytes != 100_000 {
		t.Errorf("want 100000 bytes, have %+v", res)
	}
}

func resetByDrain(t *testing.T, w way) {
	w.Start()
	pump := w.pump(0, far, 64<<10)
	w.receive(0, 4<<20)
	if !w.outLeg().tcp() {
		eventually(t, "an unread byte", func() bool { n, err := unread(w.dst); return err == nil && n > 0 })
	}
	w.back().abort(0)
	w.senderCut(pump)
}

func resetByStalledDrain(t *testing.T, w way) {
	w.Start()
	pump := w.pump(0, far, 256<<10)
	settled(t, "the sender", pump.sent.Load)
	eventually(t, "unread bytes", func() bool { n, err := unread(w.dst); return err == nil && n > 0 })
	w.back().abort(0)
	w.senderCut(pump)
}

// senderCut expects that the sender is cut off since the receiver has reset.
func (w way) senderCut(pump *pump) {
	w.t.Helper()
	pump.wait()
	if !errors.Is(pump.err, syscall.ECONNRESET) && !errors.Is(pump.err, syscall.EPIPE) {
		w.t.Errorf("the sender goes on after the receiver's reset: %v", pump.err)
	}
	res := w.Wait()
	end := w.end(res)
	want(w.t, "this way", end.Reason, "reset-by-drain")
	want(w.t, "the way back", w.back().end(res).Reason, "reset-by-source")
	if end.Err == nil {
		w.t.Errorf("a reset without its error: %+v", end)
	}
	// The last write may have got further than it could say.
	if end.Bytes+int64(len(end.Undelivered)) > pump.sent.Load()+64<<10+256<<10 {
		w.t.Errorf("more bytes than were sent: %d and %d of %d", end.Bytes, len(end.Undelivered), pump.sent.Load())
	}
	if err := w.check(end.Undelivered, end.Bytes); err != nil {
		w.t.Errorf("undelivered: %v", err)
	}
}

func resetBoth(t *testing.T, p *place) {
	l := p.link(t)
	l.Start(splice.HalfCloseTimeout(patience / 2))
	l.forward().carry(0, 1000, 1000)
	l.backward().send(0, 1000) // unread at the client, which resets by that
	l.backward().carried(1000)
	l.forward().abort(1000)
	l.B.Close()
	res := l.Wait()
	want(t, "a to b", res.AToB.Reason, "reset-by-source", "reset-by-drain", "eof")
	want(t, "b to a", res.BToA.Reason, "reset-by-source", "reset-by-drain", "eof")
}

// wantReset checks the reasons after the source of w has reset.
func (w way) wantReset(res splice.Result) {
	w.t.Helper()
	want(w.t, "this way", w.end(res).Reason, "reset-by-source")
	want(w.t, "the way back", w.back().end(res).Reason, "reset-by-drain")
	for _, e := range []splice.End{w.end(res), w.back().end(res)} {
		if !errors.Is(e.Err, syscall.ECONNRESET) && !errors.Is(e.Err, syscall.EPIPE) {
			w.t.Errorf("a reset with error %v, want %v or %v", e.Err, syscall.ECONNRESET, syscall.EPIPE)
		}
	}
}

// acknowledged waits until the relay's kernel has all that was sent.
func (w way) acknowledged() {
	w.t.Helper()
	if !w.inLeg().tcp() {
		return // a unix socket's peer has it at once
	}
	eventually(w.t, "all acknowledged", func() bool {
		n, err := unacked(w.src)
		return err == nil && n == 0
	})
}

// sure returns how many bytes have come to the relay's kernel for certain.
func (w way) sure(p *pump) int64 {
	sent := p.sent.Load()
	if !w.inLeg().tcp() {
		return sent
	}
	n, err := unacked(w.src)
	if err != nil {
		w.t.Fatalf("look into the queue: %v", err)
	}
	return sent - n
}
