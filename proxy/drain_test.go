package proxy

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// A drain closes its connections evenly over the time of spread, and has closed
// them all at its end, also where its timer rings late.
func TestDrainClosesEvenly(t *testing.T) {
	const spread = 10 * time.Second
	for _, n := range []int{0, 1, 2, 20, 499, 500, 501, 30_000} {
		for _, late := range []time.Duration{0, 5 * time.Millisecond, 300 * time.Millisecond} {
			t.Run(fmt.Sprint(n, " late by ", late), func(t *testing.T) {
				r := rand.New(rand.NewPCG(1, 2))
				open, at, last := n, time.Duration(0), time.Duration(0)
				for range 10_000 {
					now, next := lot(open, at-last, spread-at)
					if now < 0 || now > open {
						t.Fatalf("closes %d of %d", now, open)
					}
					open -= now
					if next == 0 {
						break
					}
					if even := float64(n) * float64(spread-at) / float64(spread); at < spread-time.Second && n > 0 {
						slack := 3 + 0.03*float64(n)
						if d := float64(open) - even; d > slack || d < -slack {
							t.Fatalf("%d of %d are open after %v, want %.0f", open, n, at, even)
						}
					}
					last = at
					at += next + time.Duration(r.Int64N(int64(late)+1))
				}
				if open != 0 || at < spread-drainStep && n > 0 || at > spread+late {
					t.Errorf("%d are open after %v", open, at)
				}
			})
		}
	}
}
