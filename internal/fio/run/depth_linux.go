package run

import (
	"fmt"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/fio/job"
)

// depthControl is max_latency, and the search of latency_target for the
// largest queue depth that keeps within it.
type depthControl struct {
	active   bool
	limit    int // how many may be on the way
	lo, hi   int // largest depth that was good, smallest that was not
	target   int64
	window   int64
	percent  float64
	at       int64
	n, over  uint64
	finished bool
	most     [job.Directions]int64
	checks   bool
}

func (d *depthControl) init(o *job.Options, depth int) {
	*d = depthControl{limit: depth, hi: depth + 1}
	for dir, m := range o.MaxLatency {
		d.most[dir] = int64(m)
		d.checks = d.checks || m > 0
	}
	if o.LatencyTarget > 0 {
		d.active, d.checks = true, true
		d.target, d.window, d.percent = int64(o.LatencyTarget), int64(o.LatencyWindow), o.LatencyPercentile
	}
}

func (d *depthControl) add(w *worker, lat, now int64) {
	if !d.checks {
		return
	}
	for dir, most := range d.most {
		if most > 0 && lat > most && dirUsed(w.o, dir) {
			w.quit(fmt.Errorf("latency of %v exceeds max_latency=%v: %w", time.Duration(lat), time.Duration(most), syscall.ETIMEDOUT))
			return
		}
	}
	if !d.active {
		return
	}
	if d.at == 0 {
		d.at = now
	}
	d.n++
	if lat > d.target {
		d.over++
	}
	if now-d.at < d.window {
		return
	}
	good := float64(d.n-d.over) >= d.percent/100*float64(d.n)
	d.step(w, good)
	d.at, d.n, d.over = now, 0, 0
}

func (d *depthControl) step(w *worker, good bool) {
	if good {
		d.lo = d.limit
	} else {
		d.hi = d.limit
	}
	if d.hi-d.lo <= 1 {
		w.st.LatencyDepth = d.lo
		if d.lo == 0 {
			w.quit(fmt.Errorf("latency_target=%v can't be met even with iodepth=1: %w", time.Duration(d.target), syscall.ETIMEDOUT))
			return
		}
		d.limit = d.lo
		if d.finished = !w.o.LatencyRun; !d.finished {
			d.lo, d.hi = d.limit-1, len(w.units)+1
		}
		return
	}
	d.limit = (d.lo + d.hi) / 2
}
