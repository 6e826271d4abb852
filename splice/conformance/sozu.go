//go:build linux

package conformance

import (
	"runtime"
	"testing"
)

// sozu has the classes of defects that Sōzu and h2o mended in theirs.
func sozu() []scenario {
	return []scenario{
		// PR 1323; h2o PR 3075: sixteen segments of MSS size fill the slots of
		// a pipe at 23 KiB. Its EAGAIN is then not the source's.
		{name: "slots-full-of-segments", plain: true, jam: true, run: eachWay(func(t *testing.T, w way) { slots(t, w, 1448, 4<<20) })},
		{name: "slots-full-of-crumbs", plain: true, jam: true, run: eachWay(func(t *testing.T, w way) { slots(t, w, 7, 100_000) })},
		// f6f64fc5: one slot can hold a whole GRO packet, so a pipe holds more
		// than its size.
		{name: "more-in-the-pipe-than-its-size", plain: true, jam: true, run: eachWay(overfull)},
		// PR 1323: response tails hung until the back timeout.
		{name: "tail-behind-a-full-pipe", plain: true, jam: true, run: eachWay(tail)},
	}
}

// slots fills the engine with segments of a size that no two share a page
// reference: each takes a slot of the pipe.
func slots(t *testing.T, w way, size, total int64) {
	other := w.place.link(t).forward().like(w)
	w.Start()
	other.Start()
	// The fast path is on, and everything is full.
	sent := w.pump(0, far, 256<<10).blocked()
	sink := w.sink(0)
	osink := other.sink(0)
	// A thread's segments lie one behind the other in memory and would be one
	// reference, but for those of another connection between them.
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for at := int64(0); at < total; at += size {
			if _, err := w.write(w.src, sent+at, min(size, total-at), size); err != nil {
				done <- err
				return
			}
			if _, err := other.write(other.src, at/size*3, 3, 3); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.finish()
	sink.beyond(sent + total)
	<-sink.done
	w.carried(sent + total)
	osink.beyond((total + size - 1) / size * 3)
	osink.right()
}

func overfull(t *testing.T, w way) {
	w.Start()
	pump := w.pump(0, far, 1<<20) // segments of 64 KiB
	sent := pump.blocked()
	res := w.StopNow()
	end := w.end(res)
	if n := int64(len(end.Undelivered)); n > w.place.engine.hold() {
		t.Errorf("%d bytes were held, at most %d may be", n, w.place.engine.hold())
	}
	w.account(res, 0, sent)
	w.usable()
}

// The last bytes come while the pipe is full, and then nothing more.
func tail(t *testing.T, w way) {
	w.Start()
	const n = 6<<20 + 23_168
	pump := w.pump(0, n, 1<<20)
	w.receive(0, n/2)
	settled(t, "the count", func() int64 { return w.stats().Bytes })
	w.receive(n/2, n-n/2)
	pump.wait()
	w.carried(n)
}
