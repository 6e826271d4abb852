package run

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/spliced-io/spliced/internal/fio/stat"
)

// A Status is what a run does at a moment.
type Status struct {
	States  string // a letter a worker, in fio's alphabet
	Running int
	Total   Figures // since the start; LatMax since the last Status
	Elapsed time.Duration
	Done    float64       // share of the work, 0 to 1
	Left    time.Duration // negative: not known
}

// Status looks at all workers. LatMax starts anew with each call that resets.
func (r *Run) Status(reset bool) Status {
	var s Status
	if r.started.Load() {
		s.Elapsed = time.Since(r.epoch)
	}
	states := make([]byte, 0, len(r.workers))
	waves := map[int]time.Duration{}
	shares := 0.0
	for _, w := range r.workers {
		letter := byte(w.live.state.Load())
		states = append(states, letter)
		w.live.mu.Lock()
		f := w.live.Figures
		if reset {
			w.live.LatMax = [stat.Directions]uint64{}
		}
		w.live.mu.Unlock()
		for dir := range f.Bytes {
			s.Total.Bytes[dir] += f.Bytes[dir]
			s.Total.IOs[dir] += f.IOs[dir]
			s.Total.LatSum[dir] += f.LatSum[dir]
			s.Total.LatMax[dir] = max(s.Total.LatMax[dir], f.LatMax[dir])
		}
		switch letter {
		case '_', 'X', 'E', 'K':
			shares++
			continue
		case 'P', 'I':
		default:
			s.Running++
		}
		left, share := w.left(f, letter)
		shares += share
		if have := waves[w.wave]; have >= 0 && (left < 0 || left > have) {
			waves[w.wave] = left
		}
	}
	s.States = string(states)
	s.Done = shares / float64(max(len(r.workers), 1))
	for _, left := range waves { // one wave after the other
		if left < 0 {
			s.Left = -1
			break
		}
		s.Left += left
	}
	return s
}

// left estimates how long a worker still needs: what its runtime leaves, or
// what its bytes need at its own speed, whichever ends first.
func (w *worker) left(f Figures, letter byte) (time.Duration, float64) {
	o := w.o
	waiting := letter == 'P' || letter == 'I'
	whole := o.Runtime + o.RampTime + o.StartDelay[1]
	took := time.Duration(0)
	if !waiting && f.Begin > 0 {
		took = time.Since(w.run.epoch) - time.Duration(f.Begin)
	}
	if o.TimeBased || waiting {
		if o.Runtime == 0 {
			return -1, 0
		}
		return max(whole-took, 0), min(took.Seconds()/max(whole.Seconds(), 1e-9), 1)
	}
	var bytes uint64
	for _, n := range f.Bytes {
		bytes += n
	}
	want := float64(f.Target) * float64(max(o.Loops, 1))
	if w.verifies() {
		share := 1.0
		if o.Reads() {
			share = float64(100-o.MixRead) / 100
		}
		want *= 1 + share
	}
	if want == 0 || bytes == 0 || took <= 0 {
		if o.Runtime > 0 {
			return max(whole-took, 0), 0
		}
		return -1, 0
	}
	share := min(float64(bytes)/want, 1)
	left := time.Duration(math.Max(0, (want-float64(bytes))/float64(bytes)*float64(took)))
	if o.Runtime > 0 && whole-took < left {
		left = max(whole-took, 0)
		share = max(share, min(took.Seconds()/whole.Seconds(), 1))
	}
	return left, share
}

// samples says whether a worker should let others run now: only where there
// are more workers than processors would this process starve its own helpers.
func (r *Run) samples(int) bool { return len(r.workers) > 1 }

// aggregate writes the bandwidth of all jobs together, each half second.
func (r *Run) aggregate() (end func()) {
	const every = 500 * time.Millisecond
	var list [stat.Directions]*stat.Log
	for dir := range list {
		l, err := stat.CreateLog(fmt.Sprintf("agg-%s_bw.log", stat.Name(dir)), stat.LogFormat{})
		if err != nil {
			r.say("%v", err)
			return func() {}
		}
		list[dir] = l
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		var last Figures
		at := time.Now()
		for {
			select {
			case <-quit:
				return
			case <-t.C:
			}
			s := r.Status(false)
			seconds := time.Since(at).Seconds()
			at = time.Now()
			for dir, l := range list {
				if n := s.Total.Bytes[dir] - last.Bytes[dir]; n > 0 {
					l.AddRate(stat.Sample{Now: int64(s.Elapsed), Dir: dir, Value: uint64(float64(n) / 1024 / seconds)})
				}
			}
			last = s.Total
		}
	})
	return func() {
		close(quit)
		wg.Wait()
		for _, l := range list {
			if err := l.Close(int64(time.Since(r.epoch))); err != nil {
				r.say("%v", err)
			}
		}
	}
}
