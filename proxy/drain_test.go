package proxy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// A drain closes its connections evenly over the time of spread, also where its
// timer rings late, and has closed them all at its end.
func TestDrainClosesEvenly(t *testing.T) {
	const spread = 10 * time.Second
	for _, n := range []int{0, 1, 2, 20, 499, 500, 501, 30_000} {
		for _, late := range []time.Duration{0, 5 * time.Millisecond, 300 * time.Millisecond} {
			t.Run(fmt.Sprint(n, " late by ", late), func(t *testing.T) {
				r := rand.New(rand.NewPCG(1, 2))
				open, at, due := n, time.Duration(0), time.Duration(0)
				for at < spread && open > 0 {
					now, next := lot(open, at-due, spread-at)
					if now < 0 || now > open {
						t.Fatalf("closes %d of %d", now, open)
					}
					open -= now
					if even := float64(n) * float64(spread-at) / float64(spread); at < spread-drainStep && math.Abs(float64(open)-even) > 1+0.001*float64(n) {
						t.Fatalf("%d of %d are open after %v, want %.1f", open, n, at, even)
					}
					due = at + next
					at += max(next, drainStep) + time.Duration(r.Int64N(int64(late)+1))
				}
				if open != 0 && late < drainStep {
					t.Errorf("%d are open at the end", open)
				}
			})
		}
	}
}
