package bpf_test

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/testnet"
)

// loadWire loads the programs, attached to nothing.
func loadWire(t *testing.T) *bpf.WireObjects {
	t.Helper()
	testnet.Need(t, "root", "bpf")
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	var o bpf.WireObjects
	if err := bpf.LoadWireObjects(&o, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return &o
}

// watched enters the i-th pair as it is before a switch: both sides have been seen.
func watched(t *testing.T, o *bpf.WireObjects, i int) (keys [2]bpf.WireKey, sides [2]bpf.WireSide) {
	t.Helper()
	a, ba, bc, c := pairOf(i)
	keys = [2]bpf.WireKey{bpf.WireKeyOf(a, ba), bpf.WireKeyOf(c, bc)}
	for k := range keys {
		f := bpf.WireFlow{Seen: 1, Acked: 1000, Window: 1000, Passed: 1}
		if err := o.Insert(&keys[k], &f); err != nil {
			t.Fatal(err)
		}
		sides[k] = bpf.WireSide{Key: keys[k], Received: 1, Edge: 1, Promised: 1000}
		sides[k].Rewrite.To, sides[k].Rewrite.Ifindex = keys[1-k].Reverse(), 1
		sides[k].Rewrite.SeqAdd = 999
	}
	return keys, sides
}

// A rival has packets arrive on a CPU of its own, each at about the moment at which the test, on another
// one, does something else.
type rival struct {
	turn, arrived atomic.Int64
	answer        atomic.Uint32
	done          chan error
}

// newRival returns one whose i-th packet is packets[i%len(packets)], from 1 on. The test's goroutine stays on
// its thread from now on.
func newRival(t *testing.T, o *bpf.WireObjects, packets ...[]byte) *rival {
	t.Helper()
	testnet.Need(t, "cpus")
	const over = -1
	r := &rival{done: make(chan error, 1)}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for i := int64(1); ; i++ {
			for r.turn.Load() != i { // not Gosched: both are to be quick
				if r.turn.Load() == over {
					r.done <- nil
					return
				}
			}
			ret, err := o.WireIngress.Run(&ebpf.RunOptions{Data: packets[i%int64(len(packets))]})
			if err != nil {
				r.done <- err
				return
			}
			r.answer.Store(ret)
			r.arrived.Store(i)
		}
	}()
	runtime.LockOSThread()
	t.Cleanup(func() {
		runtime.UnlockOSThread()
		r.turn.Store(over)
		if err := <-r.done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// send has the i-th packet arrive, and waits for about that long.
func (r *rival) send(i int64, lag int) {
	r.turn.Store(i)
	for range lag {
		r.turn.Load()
	}
}

// sent waits until it has arrived; false is that it never does, and the test fails in the end.
func (r *rival) sent(i int64) bool {
	for r.arrived.Load() != i {
		if len(r.done) > 0 {
			return false
		}
		runtime.Gosched()
	}
	return true
}

// meet has packets arrive at about the moment at which a pair is switched, many times. judge is told
// what both say and what the entries are then: earlier means that the packet was, as far as it
// shows.
func meet(t *testing.T, o *bpf.WireObjects, packets [2][]byte, judge func(err error, answer uint32, flows *[2]bpf.WireFlow) (earlier bool)) {
	t.Helper()
	const rounds, enough = 20000, 3 * time.Second
	began := time.Now()
	rival := newRival(t, o, packets[:]...)
	lag := 0 // moves to where both come first about equally often
	for i := int64(1); i <= rounds && time.Since(began) < enough && !t.Failed(); i++ {
		keys, sides := watched(t, o, 0)
		rival.send(i, lag+rand.IntN(200))
		err := o.Switch(&sides, true)
		if !rival.sent(i) {
			return
		}
		var flows [2]bpf.WireFlow
		for k := range keys {
			var ferr error
			if flows[k], ferr = o.Flow(&keys[k]); ferr != nil {
				t.Fatal(ferr)
			}
			if want := uint32(bpf.WirePass); err != nil && flows[k].State != want {
				t.Fatalf("round %d: not switched, and the state of side %d is %d", i, k, flows[k].State)
			}
			o.Delete(&keys[k])
		}
		if judge(err, rival.answer.Load(), &flows) {
			lag = max(0, lag-20)
		} else {
			lag += 20
		}
	}
}

// What a FIN meets at the moment of the switch. Either it was seen before, and there
// is no switch, or it comes after it and goes across. A FIN that a socket gets although
// the pair is switched would have the relay cut a connection that had ended well.
func TestWireSwitchMeetsFIN(t *testing.T) {
	o := loadWire(t)
	a, ba, bc, c := pairOf(0)
	fins := [2][]byte{frame(a, ba), frame(c, bc)}
	for _, fin := range fins {
		fin[14+20+13] |= 1
	}
	const next = ^uint32(0)
	var switched, refused int
	meet(t, o, fins, func(err error, answer uint32, _ *[2]bpf.WireFlow) bool {
		switch {
		case err == nil && answer != next:
			switched++
		case err == syscall.ENOTCONN && answer == next:
			refused++
		default:
			t.Errorf("switching says %v, and the program answers %d to the FIN", err, int32(answer))
		}
		return err != nil
	})
	t.Logf("%d FINs came before the switch, %d after it", refused, switched)
}

// What data of a, whose entry is switched last, meets at that moment. It was seen before anything is
// switched, and nothing is; or between, and is its socket's to deliver; or after, and goes across. To take
// half a switch back would leave what b's entry has let across meanwhile to nobody.
func TestWireSwitchMeetsData(t *testing.T) {
	o := loadWire(t)
	a, ba, _, _ := pairOf(0)
	data := frame(a, ba) // 64 bytes from number 1 on
	const next, start, end = ^uint32(0), 1, 65
	var before, between, after int
	meet(t, o, [2][]byte{data, data}, func(err error, answer uint32, f *[2]bpf.WireFlow) bool {
		switch {
		case err == syscall.EAGAIN && answer == next:
			before++
			if f[1].LastSeen != 0 {
				t.Error("b's entry was switched, and back")
			}
			return true
		case err == nil && answer == next:
			between++
			if f[0].Cut != end || f[0].Passed != end {
				t.Errorf("what has gone up ends at %d, and the socket is to deliver all before %d", f[0].Passed, f[0].Cut)
			}
			return true
		case err == nil:
			after++
			if f[0].Cut != start || f[0].End != end {
				t.Errorf("it has gone across, and ends at %d; the socket is to deliver all before %d", f[0].End, f[0].Cut)
			}
		default:
			t.Errorf("switching says %v, and the program answers %d to data", err, int32(answer))
		}
		return false
	})
	t.Logf("%d segments came before the switch, %d between, %d after it", before, between, after)
}

// Two segments of one sender come by at once, on two CPUs. What is known of them is what the later one says: a
// pair of which less seems to have been sent than was acknowledged is never at rest, and never taken back.
func TestWireNumbersNeverRetreat(t *testing.T) {
	o := loadWire(t)
	const size = 100
	w := &ways[0]
	keys := w.spliced(t, o)
	first := crafted{from: w.a, to: w.ba, seq: sentByA, ack: sentByC - addAck + size, flags: ack, window: room >> shiftIn, data: make([]byte, size)}
	second := first
	second.seq, second.ack = first.seq+size, first.ack+size
	race(t, o, &keys, second.frame(), first.frame(), func(f *[2]bpf.WireFlow) bool {
		return f[0].End != second.seq+size || f[0].Acked != second.ack || f[0].Edge != second.ack+room
	})
}

// race has the i-th packet of a rival arrive at about the moment at which another does here, many times over, each time with
// the entries as they are now. judge says whether what they are afterwards is wrong.
func race(t *testing.T, o *bpf.WireObjects, keys *[2]bpf.WireKey, here, there []byte, judge func(*[2]bpf.WireFlow) bool) {
	t.Helper()
	const rounds, enough = 200000, 1500 * time.Millisecond
	var was, is [2]bpf.WireFlow
	look := func(flows *[2]bpf.WireFlow) {
		t.Helper()
		for i := range keys {
			var err error
			if flows[i], err = o.Flow(&keys[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	look(&was)
	rival := newRival(t, o, there)
	wrong, n := 0, int64(0)
	for began := time.Now(); n < rounds && time.Since(began) < enough; {
		n++
		for i := range keys {
			if err := o.Flows.Put(&keys[i], &was[i]); err != nil {
				t.Fatal(err)
			}
		}
		rival.send(n, rand.IntN(300))
		if _, err := o.WireIngress.Run(&ebpf.RunOptions{Data: here}); err != nil {
			t.Fatal(err)
		}
		if !rival.sent(n) {
			return
		}
		if look(&is); judge(&is) {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("wrong in %d rounds of %d", wrong, n)
	}
}

// A FIN and a copy of it that was overtaken come by at once, on two CPUs. What is known for certain stays so: the
// end of a pair would never be reported.
func TestWireFINStaysCertain(t *testing.T) {
	o := loadWire(t)
	w := &ways[0]
	keys := w.spliced(t, o)
	says := func(size int, flags byte, clock uint32) crafted {
		return crafted{
			from: w.a, to: w.ba, seq: sentByA, ack: sentByC - addAck, flags: flags, window: 1,
			data: make([]byte, size), options: join([]byte{1, 1, 8, 10}, be32(clock, 0)),
		}
	}
	runWire(t, o, says(100, ack, 10).frame())
	certain, overtaken := says(0, fin|ack, 11), says(0, fin|ack, 8)
	certain.seq += 100
	overtaken.seq += 100
	race(t, o, &keys, overtaken.frame(), certain.frame(), func(f *[2]bpf.WireFlow) bool {
		return f[0].Fin != 1 || f[1].PeerFin&bpf.WireFinned == 0
	})
}

// Both FINs are acknowledged at once, on two CPUs: one of them says that the pair is over.
func TestWireEndsAtOnce(t *testing.T) {
	o := loadWire(t)
	w := &ways[0]
	keys := w.spliced(t, o)
	a := crafted{from: w.a, to: w.ba, seq: sentByA, ack: sentByC - addAck, flags: fin | ack, window: 1}
	c := crafted{from: w.c, to: w.bc, seq: sentByC, ack: sentByA + addSeq, flags: fin | ack, window: 1}
	for _, s := range []*crafted{&a, &c} {
		runWire(t, o, s.frame())
		s.seq++
		s.ack++
		s.flags = ack
	}
	race(t, o, &keys, a.frame(), c.frame(), func(f *[2]bpf.WireFlow) bool {
		return f[0].Over == 0 || f[1].Over == 0 || max(f[0].Verdict, f[1].Verdict) != bpf.WireEndedFIN
	})
}
