package engine

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestTimersRingInOrder(t *testing.T) {
	var h timers
	rng := rand.New(rand.NewPCG(1, 2))
	all := make([]timer, 500)
	want := make(map[*timer]time.Duration)
	for range 5000 {
		tm := &all[rng.IntN(len(all))]
		switch at := time.Duration(1 + rng.IntN(1000)); {
		case rng.IntN(4) == 0:
			h.set(tm, 0)
			delete(want, tm)
		default:
			h.set(tm, at)
			// A later time does not move a timer: it may ring early.
			if old, ok := want[tm]; !ok || at < old {
				want[tm] = at
			}
		}
	}
	if len(h) != len(want) {
		t.Fatalf("%d timers are set, want %d", len(h), len(want))
	}
	last := time.Duration(0)
	for h.next() != 0 {
		next := h.next()
		if h.pop(next-1) != nil {
			t.Fatal("a timer rang before its time")
		}
		tm := h.pop(next)
		if tm == nil || want[tm] != next || next < last {
			t.Fatalf("rang at %d after %d, want %d", next, last, want[tm])
		}
		last = next
		delete(want, tm)
	}
	if len(want) != 0 {
		t.Fatalf("%d timers never rang", len(want))
	}
}
