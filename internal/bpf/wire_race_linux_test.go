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

// What a FIN meets at the moment of the switch. Either it was seen before, and there
// is no switch, or it comes after it and goes across. A FIN that a socket gets although
// the pair is switched would have the relay cut a connection that had ended well.
func TestWireSwitchMeetsFIN(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs")
	}
	o := loadWire(t)
	a, ba, bc, c := pairOf(0)
	fins := [2][]byte{frame(a, ba), frame(c, bc)}
	for _, fin := range fins {
		fin[14+20+13] |= 1
	}
	const rounds, enough = 20000, 3 * time.Second
	const next, over = ^uint32(0), -1
	began := time.Now()
	var turn, arrived atomic.Int64
	var answer atomic.Uint32
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for i := int64(1); ; i++ {
			for turn.Load() != i { // not Gosched: both are to be quick
				if turn.Load() == over {
					done <- nil
					return
				}
			}
			ret, err := o.WireIngress.Run(&ebpf.RunOptions{Data: fins[i%2]})
			if err != nil {
				done <- err
				return
			}
			answer.Store(ret)
			arrived.Store(i)
		}
	}()
	defer func() {
		turn.Store(over)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var switched, refused int
	lag := 0 // moves to where both come first about equally often
	for i := int64(1); i <= rounds && time.Since(began) < enough; i++ {
		keys, sides := watched(t, o, 0)
		turn.Store(i)
		for range lag + rand.IntN(200) {
			turn.Load()
		}
		err := o.Switch(&sides, true)
		for arrived.Load() != i {
			if len(done) > 0 {
				return // it says why
			}
			runtime.Gosched()
		}
		switch {
		case err == nil && answer.Load() != next:
			switched++
			lag += 20
		case err == syscall.ENOTCONN && answer.Load() == next:
			refused++
			lag = max(0, lag-20)
		default:
			t.Fatalf("round %d: switching says %v, and the program answers %d to the FIN", i, err, int32(answer.Load()))
		}
		for k := range keys {
			f, ferr := o.Flow(&keys[k])
			if ferr != nil {
				t.Fatal(ferr)
			}
			if want := uint32(bpf.WirePass); err != nil && f.State != want {
				t.Fatalf("round %d: not switched, and the state of side %d is %d", i, k, f.State)
			}
			o.Delete(&keys[k])
		}
	}
	t.Logf("%d FINs came before the switch, %d after it", refused, switched)
}
