//go:build linux

package conformance

import "testing"

// stream is how many bytes make a long stream: less where the race detector
// looks at each of them.
const stream = 64<<20 - raceShare*48<<20

// fastPath: the engine that was asked for is the one that ran, and if not, the
// statistics say why.
func fastPath() []scenario {
	return []scenario{
		{name: "stream-of-64-MiB", run: eachWay(fastStream)},
		{name: "small-messages", plain: true, run: eachWay(fastSmall)},
		{name: "small-then-stream-then-small", plain: true, run: eachWay(fastAdapts)},
		{name: "streams-both-ways", plain: true, run: fastBoth},
	}
}

func fastStream(t *testing.T, w way) {
	const n = stream
	w.Start()
	at := w.handedOver(64 << 10)
	w.carry(at, n, 1<<20)
	w.carried(at + n)
	w.finish()
	w.receiveEOF()
	w.fast(t)
	w.wired(t, n)
}

// handedOver carries messages of that size, answered if they are small ones, until the
// session is handed over to an engine that takes that. It returns how many bytes went
// this way.
func (w way) handedOver(size int64) (at int64) {
	w.t.Helper()
	e := w.place.engine
	if e.Handed == nil || e.refused(w.place) != "" {
		return 0
	}
	eventually(w.t, "the session handed over", func() bool {
		if w.carry(at, size, size); size < 1000 {
			w.back().carry(at, size, size)
		}
		at += size
		return e.Handed(w.Session.Stats())
	})
	return at
}

// wired checks that at least n bytes went this way by the program.
func (w way) wired(t *testing.T, n int64) {
	t.Helper()
	if e := w.place.engine; e.Handed == nil || e.refused(w.place) != "" {
		return
	}
	i := 0
	if !w.ahead {
		i = 1
	}
	var have int64
	if !within(patience, func() bool { // acknowledgements may be late
		if st := w.Session.Stats().Wire; st != nil {
			have = st.Delivered[i]
		}
		return have >= n
	}) {
		t.Errorf("want %d bytes or more by the program, have %d", n, have)
	}
}

// fast checks the way that a stream went.
func (w way) fast(t *testing.T) {
	t.Helper()
	d := w.stats()
	if w.place.network.A == MPTCP && w.place.engine.Refused == nil {
		// The kernel may not splice these; then it is said.
		if d.Spliced*10 < d.Bytes*9 && d.Engine.String() != "copy" {
			t.Errorf("engine %v carried %d of %d bytes", d.Engine, d.Spliced, d.Bytes)
		}
		return
	}
	e := w.place.engine
	if err := e.check(e.Stream, w); err != nil {
		t.Errorf("after a stream: %v", err)
	}
}

func fastSmall(t *testing.T, w way) {
	const rounds, size = 500, 64
	w.Start()
	w.pingPong(w.handedOver(size), rounds, size)
	for _, w := range []way{w, w.back()} {
		w.wired(t, rounds*size)
		e := w.place.engine
		if err := e.check(e.Small, w); err != nil {
			t.Errorf("after small messages: %v", err)
		}
	}
}

// pingPong sends messages of size bytes and has them answered.
func (w way) pingPong(off, rounds, size int64) {
	w.t.Helper()
	for range rounds {
		w.send(off, size)
		w.receive(off, size)
		w.back().send(off, size)
		w.back().receive(off, size)
		off += size
	}
}

// The change of engine must not change the stream.
func fastAdapts(t *testing.T, w way) {
	const n = 16 << 20
	w.Start()
	w.pingPong(0, 50, 100)
	at := int64(5000)
	for range 2 {
		w.carry(at, n, 1<<20)
		at += n
		if e := w.place.engine; e.Stream == nil || e.Refused != nil || w.stats().Engine.String() == "copy" {
			w.carry(at, 100, 100)
			at += 100
			continue
		}
		// The stream is over when the source pauses between small messages: a
		// busy machine may send the next before the relay sees the pause.
		eventually(t, "small messages copied again", func() bool {
			w.carry(at, 100, 100)
			at += 100
			return w.stats().Engine.String() == "copy"
		})
		if why := w.stats().Why.String(); why != "small-messages" {
			t.Errorf("engine copy because of %v", why)
		}
	}
	w.carried(at)
	if name := w.place.engine.Name; name == "splice" && w.stats().Spliced < n {
		t.Errorf("%d bytes spliced of two streams of %d", w.stats().Spliced, n)
	}
}

func fastBoth(t *testing.T, p *place) {
	const n = 16 << 20
	l := p.link(t)
	f, b := l.forward(), l.backward()
	l.Start()
	at := f.handedOver(64)
	pf, pb := f.pump(at, n, 1<<20), b.pump(at, n, 1<<20)
	sf, sb := f.sink(at), b.sink(at)
	pf.wait()
	pb.wait()
	sf.beyond(at + n)
	sb.beyond(at + n)
	f.carried(at + n)
	b.carried(at + n)
	for _, w := range []way{f, b} {
		w.fast(t)
		w.wired(t, n)
	}
}
