//go:build linux

package conformance

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// fin: forwarded after every byte before it is delivered; the other direction
// goes on.
func fin() []scenario {
	return []scenario{
		{name: "after-every-byte", run: eachWay(finAfterBytes)},
		{name: "without-a-byte", run: eachWay(finAlone)},
		{name: "other-way-goes-on", run: eachWay(finOtherWay)},
		{name: "both-at-once", run: finBoth},
		{name: "behind-full-buffers", plain: true, jam: true, run: eachWay(finBehindFull)},
		{name: "not-before-the-last-byte-is-read", plain: true, jam: true, run: eachWay(finNotEarly)},
		{name: "close-instead-of-shutdown", run: eachWay(finByClose)},
		{name: "relay-returns", run: finRelay},
	}
}

func finAfterBytes(t *testing.T, w way) {
	for _, n := range []int64{1, 1000, 3 << 20} {
		l := w.place.link(t)
		w := l.forward().like(w)
		w.Start()
		pump := w.pump(0, n, 100_000)
		go func() {
			pump.wait()
			_ = closeWrite(w.src)
		}()
		w.receive(0, n)
		w.receiveEOF()
		w.back().finish()
		w.back().receiveEOF()
		res := w.Wait()
		want(t, "this way", w.end(res).Reason, "eof")
		want(t, "the way back", w.back().end(res).Reason, "eof")
		if w.end(res).Bytes != n || w.back().end(res).Bytes != 0 {
			t.Errorf("want %d and 0 bytes, have %+v", n, res)
		}
		if len(w.end(res).Undelivered)+len(w.back().end(res).Undelivered) != 0 {
			t.Errorf("bytes returned though all were delivered: %+v", res)
		}
	}
}

func finAlone(t *testing.T, w way) {
	w.Start()
	w.finish()
	w.receiveEOF()
	eventually(t, "the end of the direction", func() bool { return w.stats().Reason.String() == "eof" })
	want(t, "the way back", w.back().stats().Reason, "running")
	w.back().carry(0, 100, 100)
}

func finOtherWay(t *testing.T, w way) {
	w.Start()
	w.carry(0, 1000, 1000)
	w.finish()
	w.receiveEOF()
	w.back().carry(0, 8<<20, 100_000)
	w.back().finish()
	w.back().receiveEOF()
	res := w.Wait()
	if w.end(res).Bytes != 1000 || w.back().end(res).Bytes != 8<<20 {
		t.Errorf("want 1000 and %d bytes, have %+v", 8<<20, res)
	}
}

func finBoth(t *testing.T, p *place) {
	l := p.link(t)
	f, b := l.forward(), l.backward()
	l.Start()
	pf, pb := f.pump(0, 4<<20, 50_000), b.pump(0, 4<<20, 50_000)
	done := make(chan error, 1)
	go func() {
		_, err := b.read(b.dst, 0, 4<<20)
		done <- err
	}()
	f.receive(0, 4<<20)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	pf.wait()
	pb.wait()
	f.finish()
	b.finish()
	f.receiveEOF()
	b.receiveEOF()
	res := l.Wait()
	want(t, "a to b", res.AToB.Reason, "eof")
	want(t, "b to a", res.BToA.Reason, "eof")
}

// The FIN arrives while every buffer up to the receiver is full.
func finBehindFull(t *testing.T, w way) {
	w.Start()
	sent := w.pump(0, far, 256<<10).blocked()
	w.finish()
	w.stalled(sent)
	w.receive(0, sent)
	w.receiveEOF()
	w.back().finish()
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "eof")
	if w.end(res).Bytes != sent {
		t.Errorf("want %d bytes, have %d", sent, w.end(res).Bytes)
	}
}

// stalled waits until nothing moves, and checks that the direction has not
// ended before all is delivered.
func (w way) stalled(sent int64) {
	w.t.Helper()
	settled(w.t, "the count", func() int64 { return w.stats().Bytes })
	if s := w.stats(); s.Bytes < sent {
		want(w.t, "a direction that holds bytes", s.Reason, "running")
	}
}

// All but one byte read: the end must not be seen in its place.
func finNotEarly(t *testing.T, w way) {
	w.Start()
	const n = 2 << 20
	pump := w.pump(0, n, n)
	w.receive(0, n-1)
	pump.wait()
	w.finish()
	w.receive(n-1, 1)
	w.receiveEOF()
}

func finByClose(t *testing.T, w way) {
	w.Start()
	w.carry(0, 10_000, 100)
	w.send(10_000, 10_000)
	w.src.Close()
	w.receive(10_000, 10_000)
	w.receiveEOF()
	// A unix socket that is closed is known to be gone: the way back may be over
	// by now, and this end reset.
	if err := closeWrite(w.dst); err != nil && !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("shut down the way back: %v", err)
	}
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "eof")
	if w.end(res).Bytes != 20_000 {
		t.Errorf("want 20000 bytes, have %+v", res)
	}
}

// Relay is Start and Wait, and its error is nil for a clean end.
func finRelay(t *testing.T, p *place) {
	l := p.link(t)
	type outcome struct {
		res splice.Result
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		res, err := splice.Relay(t.Context(), l.relayA, l.relayB, l.options()...)
		done <- outcome{res, err}
	}()
	f, b := l.forward(), l.backward()
	f.carry(0, 5000, 500)
	b.carry(0, 6000, 600)
	f.finish()
	f.receiveEOF()
	b.finish()
	b.receiveEOF()
	select {
	case o := <-done:
		if o.err != nil || o.res.AToB.Bytes != 5000 || o.res.BToA.Bytes != 6000 {
			t.Errorf("want 5000 and 6000 bytes, have %+v, %v", o.res, o.err)
		}
		want(t, "a to b", o.res.AToB.Reason, "eof")
		want(t, "b to a", o.res.BToA.Reason, "eof")
	case <-time.After(patience):
		t.Fatal("Relay doesn't return")
	}
}

// like returns the way of w's direction on this link.
func (w way) like(other way) way {
	if w.ahead == other.ahead {
		return w
	}
	return w.back()
}
