//go:build linux

package conformance

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// freeBSD has the cases of tests/sys/kern/socket_splice.c, by their names
// there. splice_capsicum and splice_kevent have no counterpart: descriptors
// have no such rights here, and a joined connection is nobody else's to poll.
func freeBSD() []scenario {
	return []scenario{
		{name: "splice_basic", run: eachWay(freeBasic)},
		{name: "splice_error", plain: true, run: sameSocketTwice},
		{name: "splice_limit_bytes", run: eachWay(maxByteByByte)},
		{name: "splice_limit_timeout", plain: true, clock: true, run: freeLimitTimeout, skip: func(p *place) bool { return p.own }},
		{name: "splice_listen", plain: true, run: freeListen},
		{name: "splice_loop", plain: true, run: loopStops},
		{name: "splice_nonblock", plain: true, run: eachWay(freeNonblock)},
		{name: "splice_resplice", run: joinedAgain},
		{name: "splice_throughput", plain: true, run: freeThroughput},
		{name: "splice_v4v6", plain: true, run: freeV4V6},
	}
}

// One byte each way; the counters stay when the session is over.
func freeBasic(t *testing.T, w way) {
	w.Start()
	w.carry(0, 1, 1)
	w.carried(1)
	w.back().carry(0, 1, 1)
	w.back().carried(1)
	res := w.Stop()
	if res.AToB.Bytes != 1 || res.BToA.Bytes != 1 {
		t.Errorf("want 1 byte each way, have %+v", res)
	}
	w.usable()
	if s := w.Session.Stats(); s.AToB.Bytes != 1 || s.BToA.Bytes != 1 {
		t.Errorf("the counters went on after the session: %+v", s)
	}
}

// After the timeout bytes appear on the relay's own socket.
func freeLimitTimeout(t *testing.T, p *place) {
	l := p.link(t)
	l.Start(splice.IdleTimeout(2 * short))
	w := l.forward()
	w.carry(0, 10, 10)
	res := l.Wait()
	expired(t, res, res.Stats.LastProgress, 2*short)
	w.send(10, 10)
	w.receiveFrom(w.in(), 10, 10)
}

func freeListen(t *testing.T, p *place) {
	l := p.link(t)
	ln := listening(t)
	l.refused(ln, ln, syscall.ENOTCONN)
	l.refused(ln, l.relayB, syscall.ENOTCONN)
	l.usable()
}

// Fill up to EAGAIN: all of it comes out.
func freeNonblock(t *testing.T, w way) {
	w.Start()
	var sent int64
	for range 5 {
		for {
			var n int
			err := control(w.src, func(fd int) (err error) {
				n, err = syscall.SendmsgN(fd, w.at(sent, 10_000), nil, nil, syscall.MSG_DONTWAIT)
				return err
			})
			if errors.Is(err, syscall.EAGAIN) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			sent += int64(n)
		}
	}
	w.finish()
	w.receive(0, sent)
	w.receiveEOF()
	w.carried(sent)
}

// Random sizes in both directions at once.
func freeThroughput(t *testing.T, p *place) {
	for _, n := range []int64{1, 4096, 16 << 20} {
		l := p.link(t)
		f, b := l.forward(), l.backward()
		l.Start()
		pf, pb := f.pump(0, n, 1+rand.Int64N(n)), b.pump(0, n, 1+rand.Int64N(n))
		sf, sb := f.sink(0), b.sink(0)
		pf.wait()
		pb.wait()
		sf.beyond(n)
		sb.beyond(n)
		f.finish()
		b.finish()
		res := l.Wait()
		if res.AToB.Bytes != n || res.BToA.Bytes != n {
			t.Errorf("want %d bytes each way, have %+v", n, res)
		}
	}
}

func freeV4V6(t *testing.T, p *place) {
	for _, n := range []Network{{TCP4, TCP6}, {TCP6, TCP4}} {
		l := newPlace(p.engine, n, p.own).link(t)
		l.Start()
		begin := time.Now()
		l.forward().carry(0, 1<<20, 64<<10)
		l.backward().carry(0, 1<<20, 64<<10)
		if l.Session.Stats().LastProgress.Before(begin) {
			t.Error("no progress noted")
		}
	}
}
