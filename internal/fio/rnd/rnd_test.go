package rnd

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestLFSRVisitsEachOnce(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 7, 8, 255, 256, 257, 1000, 65535, 65536, 100_003} {
		l := NewLFSR(n, 42)
		seen := make([]bool, n)
		sequential, last, count := 0, uint64(0), uint64(0)
		for v, ok := l.Next(); ok; v, ok = l.Next() {
			if v >= n || seen[v] {
				t.Fatalf("n=%d: %d twice or out of range", n, v)
			}
			seen[v] = true
			if v == last+1 {
				sequential++
			}
			last = v
			count++
		}
		if count != n {
			t.Errorf("n=%d: %d visited", n, count)
		}
		if n > 200 && sequential > int(n/10) {
			t.Errorf("n=%d: %d steps of one", n, sequential)
		}
	}
}

// The taps of each width have the full period: found out up to 20 bits, the
// wider ones are in use but take too long to walk.
func TestLFSRPeriod(t *testing.T) {
	for width := 3; width <= 20; width++ {
		taps := maximalTaps(width)
		state, period := uint64(1), uint64(0)
		for {
			low := state & 1
			state >>= 1
			if low != 0 {
				state ^= taps
			}
			period++
			if state == 1 || period > 1<<width {
				break
			}
		}
		if period != 1<<width-1 {
			t.Errorf("width %d has period %d", width, period)
		}
	}
}

func TestMapAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(1, 20_000).Draw(t, "n")
		m := NewMap(n)
		used := make([]bool, n)
		left := n
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			at := rapid.Uint64Range(0, n-1).Draw(t, "at")
			want := rapid.Uint64Range(1, 300).Draw(t, "len")
			var got uint64
			for i := at; i < n && got < want && !used[i]; i++ {
				used[i] = true
				got++
			}
			left -= got
			if g := m.Take(at, want); g != got {
				t.Fatalf("Take(%d, %d) = %d, want %d", at, want, g, got)
			}
			from := rapid.Uint64Range(0, n-1).Draw(t, "from")
			next, ok := m.NextFree(from)
			if ok != (left > 0) || m.Left() != left {
				t.Fatalf("NextFree says %v with %d free, Left says %d", ok, left, m.Left())
			}
			if !ok {
				continue
			}
			i := from
			for used[i] {
				i = (i + 1) % n
			}
			if next != i {
				t.Fatalf("NextFree(%d) = %d, want %d", from, next, i)
			}
		}
		m.Reset()
		if m.Left() != n {
			t.Fatal("Reset left something used")
		}
	})
}

func TestSkewed(t *testing.T) {
	const n, draws = 1000, 200_000
	for _, c := range []struct {
		kind  string
		theta float64
		top   float64 // least share of the hottest tenth
	}{{"zipf", 1.2, 0.8}, {"pareto", 0.2, 0.5}, {"normal", 10, 0.3}} {
		r := New(7)
		s := NewSkewed(&r, c.kind, n, c.theta, -1)
		counts := make([]int, n)
		for range draws {
			counts[s.Next()]++
		}
		hottest := 0
		sorted := append([]int(nil), counts...)
		for range n / 10 {
			best := 0
			for i, v := range sorted {
				if v > sorted[best] {
					best = i
				}
			}
			hottest += sorted[best]
			sorted[best] = 0
		}
		if share := float64(hottest) / draws; share < c.top || math.IsNaN(share) {
			t.Errorf("%s: the hottest tenth has %.2f of the draws, want %.2f", c.kind, share, c.top)
		}
	}
}

func TestBelowIsEven(t *testing.T) {
	r := New(1)
	var counts [10]int
	for range 100_000 {
		counts[r.Below(10)]++
	}
	for i, c := range counts {
		if c < 9500 || c > 10_500 {
			t.Errorf("%d came %d times of 100000", i, c)
		}
	}
}
