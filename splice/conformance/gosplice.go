//go:build linux

package conformance

import (
	"syscall"
	"testing"
	"time"
)

// goSplice has the cases of Go's net/splice_linux_test.go that are about
// sockets, by their names there, and what its issues have taught.
func goSplice() []scenario {
	s := []scenario{
		{name: "readerAtEOF", run: oneWay(eofBefore)},
		{name: "issue25985", run: goIssue25985},
		{name: "no-unixpacket", plain: true, run: goNo(syscall.SOCK_SEQPACKET)},
		{name: "no-unixgram", plain: true, run: goNo(syscall.SOCK_DGRAM)},
		{
			// The race detector is a delay of its own.
			name: "issue10948-no-delay-for-small-messages", plain: true, run: goNoDelay,
			skip: func(*place) bool { return raceDetector },
		},
		{name: "dirty-pipe-is-not-dropped", plain: true, jam: true, run: eachWay(stopStalled)},
	}
	for _, c := range []struct {
		name                string
		chunk, total, limit int64
	}{
		{"simple", 128, 128, 0},
		{"multipleWrite", 4096, 1 << 20, 0},
		{"big", 5 << 20, 16 << 20, 0},
		{"honorsLimitedReader", 4096, 1 << 20, 1 << 10},
		{"updatesLimitedReaderN", 1024, 4096, 4096 + 100},
		{"limitedReaderAtLimit", 32, 128, 128},
	} {
		s = append(s, scenario{name: c.name, run: oneWay(func(t *testing.T, w way) {
			goTransfer(t, w, c.chunk, c.total, c.limit)
		})})
	}
	return s
}

func goTransfer(t *testing.T, w way, chunk, total, limit int64) {
	cross := total
	w.Start(w.max(limit))
	pump := w.pump(0, total, chunk)
	if limit > 0 {
		cross = min(cross, limit)
	}
	w.receive(0, cross)
	w.carried(cross)
	if limit > 0 && limit <= total {
		w.reached(limit)
		w.account(w.Stop(), cross, total)
		pump.wait()
		w.usable()
		return
	}
	pump.wait()
	want(t, "a direction below its limit", w.stats().Reason, "running")
	w.finish()
	w.receiveEOF()
}

// The client writes a little and closes; the server closes nothing, it only
// reads to the end. The relay must neither hang nor lose the bytes.
func goIssue25985(t *testing.T, p *place) {
	l := p.link(t)
	w := l.forward()
	w.send(0, 3)
	w.src.Close()
	l.Start()
	w.receive(0, 3)
	w.receiveEOF()
	w.dst.Close()
	res := l.Wait()
	want(t, "a to b", res.AToB.Reason, "eof")
	want(t, "b to a", res.BToA.Reason, "eof", "reset-by-drain")
}

func goNo(kind int) func(t *testing.T, p *place) {
	return func(t *testing.T, p *place) {
		l := p.link(t)
		l.refused(unixSocket(kind)(t), l.relayB, syscall.ESOCKTNOSUPPORT)
		l.usable()
	}
}

// SPLICE_F_MORE on the last bytes of a message costs its receiver 200 ms, each
// time; a busy machine, now and then.
func goNoDelay(t *testing.T, p *place) {
	const rounds, most = 20, 100 * time.Millisecond
	for _, size := range []int64{1, 1500, 20_000, 100_000} {
		w := p.link(t).forward()
		w.Start()
		at := int64(4 << 20)
		w.carry(0, at, 1<<20) // the fast path is on
		w.carried(at)
		slow := 0
		for i := range int64(rounds) {
			begin := time.Now()
			w.carry(at, size, size)
			at += size
			w.back().carry(i*size, size, size)
			if time.Since(begin) > most {
				slow++
			}
		}
		if slow > rounds/2 {
			t.Errorf("%d of %d round trips of %d bytes took more than %v", slow, rounds, size, most)
		}
	}
}
