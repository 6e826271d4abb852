//go:build linux

package conformance

import (
	"os"
	"testing"
)

// slowReceiver: back-pressure reaches the sender. Per direction at most one
// pipe is held besides the kernel's socket buffers.
func slowReceiver() []scenario {
	return []scenario{
		{name: "sender-blocks-and-recovers", plain: true, run: eachWay(senderBlocks)},
		{name: "both-ways-at-once", plain: true, run: bothBlock},
		{name: "other-way-goes-on", jam: true, run: eachWay(otherWayGoesOn)},
	}
}

// far is more than the buffers of two connections and an engine hold.
const far = 256 << 20

func senderBlocks(t *testing.T, w way) {
	peek := w.peek()
	w.Start()
	pump := w.pump(0, far, 256<<10)
	sent := pump.blocked()
	held := peek.held(sent)
	if most := w.place.engine.hold(); held > most {
		t.Errorf("%d bytes are held between the sockets, at most %d may be", held, most)
	}
	peek.close()
	w.receive(0, sent)
	w.carried(sent)
	w.carry(sent, 1<<20, 64<<10)
}

func bothBlock(t *testing.T, p *place) {
	l := p.link(t)
	f, b := l.forward(), l.backward()
	peekF, peekB := f.peek(), b.peek()
	l.Start()
	pf, pb := f.pump(0, far, 256<<10), b.pump(0, far, 256<<10)
	sentF, sentB := pf.blocked(), pb.blocked()
	for _, held := range []int64{peekF.held(sentF), peekB.held(sentB)} {
		if most := p.engine.hold(); held > most {
			t.Errorf("%d bytes are held between the sockets, at most %d may be", held, most)
		}
	}
	peekF.close()
	peekB.close()
	f.receive(0, sentF)
	b.receive(0, sentB)
	f.finish()
	b.finish()
	f.receiveEOF()
	b.receiveEOF()
	res := l.Wait()
	if res.AToB.Bytes != sentF || res.BToA.Bytes != sentB {
		t.Errorf("want %d and %d bytes, have %+v", sentF, sentB, res)
	}
}

func otherWayGoesOn(t *testing.T, w way) {
	w.Start()
	pump := w.pump(0, far, 256<<10)
	sent := pump.blocked()
	w.back().carry(0, 1<<20, 10_000)
	w.receive(0, sent)
}

// A peek looks into the queues of the relay's sockets, whoever owns them.
type peek struct {
	w       way
	in, out *os.File
}

func (w way) peek() *peek {
	w.t.Helper()
	p := &peek{w: w}
	w.t.Cleanup(p.close)
	var err error
	if p.in, err = duplicate(w.in()); err != nil {
		w.t.Fatalf("duplicate: %v", err)
	}
	if p.out, err = duplicate(w.out()); err != nil {
		w.t.Fatalf("duplicate: %v", err)
	}
	return p
}

// held returns how many of sent bytes are in no socket's queue, when all has
// come to rest.
func (p *peek) held(sent int64) int64 {
	w := p.w
	w.t.Helper()
	must := func(n int64, err error) int64 {
		if err != nil {
			w.t.Fatalf("look into the queue: %v", err)
		}
		return n
	}
	sample := func() int64 {
		held := sent - must(unread(w.dst))
		if w.inLeg().tcp() {
			held -= must(unacked(w.src))
		}
		if w.handed() {
			return held // the relay has no sockets any more
		}
		held -= must(unread(p.in))
		// Bytes that arrived and are not acknowledged yet count twice; that
		// passes within the time of a delayed acknowledgement.
		if w.outLeg().tcp() {
			held -= must(unacked(p.out))
		}
		return held
	}
	eventually(w.t, "every byte in one place", func() bool { return sample() >= 0 })
	held := settled(w.t, "the queues", sample)
	if held < 0 {
		w.t.Fatalf("more bytes in the queues than were sent: %d", -held)
	}
	return held
}

// close closes the extra descriptors, which would keep the sockets open.
func (p *peek) close() {
	for _, f := range []*os.File{p.in, p.out} {
		if f != nil {
			f.Close()
		}
	}
}
