//go:build linux

package conformance

import (
	"errors"
	"syscall"
	"testing"
)

// urgent: urgent data is delivered in line, in its place.
func urgent() []scenario {
	s := []scenario{}
	for _, c := range []struct {
		name string
		run  func(t *testing.T, w way)
	}{
		{"alone", urgentAlone},
		{"in-the-middle", urgentMiddle},
		{"behind-a-stream", urgentBehindStream},
		{"queued-before", urgentQueued},
		{"one-after-the-other", urgentMany},
		{"last-before-eof", urgentLast},
		{"at-the-limit", urgentAtLimit},
		{"in-a-full-buffer", urgentStalled},
	} {
		s = append(s, scenario{name: c.name, plain: true, jam: c.name == "in-a-full-buffer", run: eachWay(c.run)})
	}
	return s
}

// sendUrgent sends n bytes from position off on; the last one is urgent.
func (w way) sendUrgent(off, n int64) {
	w.t.Helper()
	var err error
	eventually(w.t, "room for urgent data", func() bool {
		err = sendUrgent(w.src, w.bytes(off, n))
		return !errors.Is(err, syscall.EAGAIN)
	})
	if err != nil {
		w.t.Fatalf("send urgent data: %v", err)
	}
}

func urgentAlone(t *testing.T, w way) {
	w.Start()
	w.sendUrgent(0, 1)
	w.receive(0, 1)
	w.carried(1)
	w.carry(1, 1000, 1000)
}

func urgentMiddle(t *testing.T, w way) {
	w.Start()
	w.send(0, 1000)
	w.sendUrgent(1000, 5)
	w.send(1005, 1000)
	w.receive(0, 2005)
	w.carried(2005)
}

// The engine is at its fastest when the mark comes.
func urgentBehindStream(t *testing.T, w way) {
	const n = 8 << 20
	w.Start()
	w.carry(0, n, 256<<10)
	w.carry(n, n, 64<<10)
	w.sendUrgent(2*n, 1)
	w.send(2*n+1, 1000)
	w.receive(2*n, 1001)
	w.carry(2*n+1001, n, 256<<10)
	w.carried(3*n + 1001)
}

func urgentQueued(t *testing.T, w way) {
	w.send(0, 1000)
	w.sendUrgent(1000, 1)
	w.send(1001, 1000)
	w.arrived(1000) // the kernel counts up to the mark
	w.acknowledged()
	w.Start()
	w.receive(0, 2001)
	w.carried(2001)
}

func urgentMany(t *testing.T, w way) {
	w.Start()
	var at int64
	for i := range int64(50) {
		w.sendUrgent(at, 1+i%3)
		at += 1 + i%3
		if i%7 == 0 {
			w.send(at, 100*i+1)
			at += 100*i + 1
		}
	}
	w.finish()
	w.receive(0, at)
	w.receiveEOF()
}

func urgentLast(t *testing.T, w way) {
	w.Start()
	w.send(0, 100)
	w.sendUrgent(100, 1)
	w.finish()
	w.receive(0, 101)
	w.receiveEOF()
}

func urgentAtLimit(t *testing.T, w way) {
	for _, limit := range []int64{1000, 1001, 1002} {
		w := w.place.link(t).forward().like(w)
		w.Start(w.max(limit))
		w.send(0, 1000)
		w.sendUrgent(1000, 1)
		w.send(1001, 1000)
		w.receive(0, limit)
		w.reached(limit)
	}
}

// The mark is behind bytes that can't move, then they move.
func urgentStalled(t *testing.T, w way) {
	w.Start()
	sent := w.pump(0, far, 256<<10).blocked()
	sink := w.sink(0)
	sink.beyond(sent / 2)
	w.sendUrgent(sent, 1)
	w.send(sent+1, 1000)
	sink.beyond(sent + 1001)
	sink.right()
	w.carried(sent + 1001)
}
