//go:build linux

package conformance

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"
)

// haproxy has the classes of defects that HAProxy mended in its splicing. The
// spinning ones need a process of their own: see Process.
func haproxy() []scenario {
	return []scenario{
		// 3abf6934a (#2505), 48f1e2b6f (#2749): a shutdown forwarded while the
		// pipe still holds data truncates.
		{name: "shutdown-meets-a-full-pipe", plain: true, jam: true, run: eachWay(shutdownMeetsFullPipe)},
		// 760d26a86: a pipe not released on a send error.
		{name: "pipe-released-on-send-error", plain: true, jam: true, run: eachWay(resetByStalledDrain)},
		// 4fc90efed: to-forward ignored; and a short splice with EPOLLRDHUP
		// is no proof of an empty input.
		{name: "to-forward-with-rdhup", plain: true, run: eachWay(toForward)},
		{name: "rdhup-is-no-end", plain: true, run: eachWay(rdhupIsNoEnd)},
		// 1146f975a, d44ad5b8b, a131a8fe9: freezes at the end of an object.
		{name: "objects-in-a-row", plain: true, run: objectsInARow},
		// c640ef1a7: leftovers in one buffer while the other fills.
		{name: "copy-and-splice-in-turn", plain: true, run: eachWay(inTurn)},
		{name: "stalled-write-side-with-eof", plain: true, jam: true, run: eachWay(stalledWithEOF)},
	}
}

func shutdownMeetsFullPipe(t *testing.T, w way) {
	w.Start()
	const n = 8 << 20
	pump := w.pump(0, n, 1<<20)
	settled(t, "the sender", pump.sent.Load)
	sink := w.sink(0)
	pump.wait()
	w.finish()
	w.back().finish()
	sink.beyond(n)
	<-sink.done
	sink.right(io.EOF)
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "eof")
	if have := w.end(res).Bytes; have != n {
		t.Errorf("%d of %d bytes", have, n)
	}
}

// All bytes and the FIN are there at once; only the limit may cross.
func toForward(t *testing.T, w way) {
	const n = 16 << 20
	for _, limit := range []int64{1, 65536, n/2 + 1, n - 1} {
		w := w.place.link(t).forward().like(w)
		pump := w.pump(0, n, 1<<20)
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			<-pump.done
			_ = closeWrite(w.src)
		}()
		settled(t, "the sender", pump.sent.Load)
		w.Start(w.max(limit))
		w.receive(0, limit)
		w.reached(limit)
		w.account(w.Stop(), limit, n)
		w.receiveEOFFrom(w.in())
		pump.wait()
		<-finished
		w.Release()
	}
}

// The FIN is seen long before the last byte is read.
func rdhupIsNoEnd(t *testing.T, w way) {
	for _, n := range []int64{1, 4097, 100_000, 1 << 20} {
		w := w.place.link(t).forward().like(w)
		pump := w.pump(0, n, n)
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			<-pump.done
			_ = closeWrite(w.src)
		}()
		settled(t, "the relay's queue", func() int64 { q, _ := unread(w.in()); return q })
		w.Start()
		w.receive(0, n)
		w.receiveEOF()
		pump.wait()
		<-finished
		w.Release()
	}
}

// Requests and objects on one connection; the last bytes of an object must not
// wait for anything.
func objectsInARow(t *testing.T, p *place) {
	l := p.link(t)
	l.Start()
	f, b := l.forward(), l.backward()
	var at int64
	for i, size := range []int64{1, 23_168, 65_536, 1 << 20, 10, 3<<20 + 7, 121_829, 0, 5, 8 << 20, 1} {
		f.send(int64(i)*10, 10)
		f.receive(int64(i)*10, 10)
		b.carry(at, size, 1<<20)
		at += size
	}
	b.carried(at)
}

// The engine changes between two ways of moving bytes while the receiver is
// slow: neither may overtake the other.
func inTurn(t *testing.T, w way) {
	w.Start()
	var at, read int64
	for i := range int64(40) {
		n := int64(1)
		if i%4 == 3 {
			n = 1 << 20
		}
		pump := w.pump(at, n, n)
		at += n
		take := (at - read) * 9 / 10
		if i%4 == 3 {
			w.receive(read, take)
			read += take
		}
		if i%8 == 7 {
			w.receive(read, at-read)
			read = at
		}
		pump.wait()
	}
	w.receive(read, at-read)
	w.carried(at)
}

// The source is at its end, the drain takes nothing, then goes.
func stalledWithEOF(t *testing.T, w way) {
	out, err := duplicate(w.out())
	if err != nil {
		t.Fatalf("duplicate: %v", err)
	}
	defer out.Close()
	w.Start()
	pump := w.pump(0, far, 256<<10)
	// A busy machine may hold the engine up, which looks the same to the sender:
	// all that it has sent might find room then. Packets that are spliced pass
	// the drain's socket by.
	looks := 0
	settled(t, "a drain without room", func() int {
		if w.stats().Engine.String() == "wire" {
			return 0
		}
		if room, err := writable(out); err != nil {
			t.Fatalf("look at the drain: %v", err)
		} else if room {
			looks++
			return looks
		}
		return 0
	})
	sent := pump.blocked()
	out.Close()
	w.finish()
	w.stalled(sent)
	if w.outLeg().tcp() {
		w.back().abort(0)
	} else {
		w.dst.Close()
	}
	res := w.Wait()
	want(t, "this way", w.end(res).Reason, "reset-by-drain")
	if err := w.check(w.end(res).Undelivered, w.end(res).Bytes); err != nil {
		t.Errorf("undelivered: %v", err)
	}
	// The source hears of it too.
	if err := w.src.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var one [1]byte
	if n, err := w.src.Read(one[:]); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the source read %d bytes, %v", n, err)
	} else if w.inLeg().tcp() && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the source saw %v, want a reset", err)
	}
}
