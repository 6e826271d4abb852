package run

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/job"
)

// throttle holds a worker back: rate, rate_iops, thinktime, flow.
type throttle struct {
	active bool // before an I/O
	thinks bool // after one
	rates  [job.Directions]rate

	think      time.Duration
	blocks     uint64
	since      uint64 // I/Os since the last pause
	lastPause  int64
	cycleAt    int64
	cycleBytes [job.Directions]uint64
	cycleIOs   [job.Directions]uint64
	flow       *flow
	weight     uint64
	mine       uint64
}

// A rate is the schedule of a direction. Start is when its first I/O was due.
type rate struct {
	perByte float64 // ns
	perIO   float64
	due     float64
	poisson bool
}

func (t *throttle) init(w *worker) {
	o := w.o
	for dir := range t.rates {
		r := &t.rates[dir]
		if n := o.Rate[dir]; n > 0 {
			r.perByte = 1e9 / float64(n)
		}
		if n := o.RateIOPS[dir]; n > 0 {
			r.perIO = 1e9 / float64(n)
		}
		r.poisson = o.RateProcess == "poisson"
		if dirUsed(o, dir) && (r.perByte > 0 || r.perIO > 0) {
			t.active = true
		}
	}
	t.think, t.blocks = o.ThinkTime, o.ThinkBlocks
	t.thinks = t.think > 0 || o.RateMin != [3]uint64{} || o.RateIOPSMin != [3]uint64{}
	t.joinFlow(w)
}

// joinFlow makes the job's weight count in its flow, once.
func (t *throttle) joinFlow(w *worker) {
	if w.o.Flow > 0 && t.flow == nil {
		t.active = true
		t.flow = w.run.flowOf(w.o.FlowID)
		t.weight = uint64(w.o.Flow)
		t.flow.join(t.weight)
	}
}

func (t *throttle) start(now int64) {
	for dir := range t.rates {
		t.rates[dir].due = float64(now)
	}
	t.lastPause, t.cycleAt = now, now
}

// turn is the direction whose turn it is in a mix: that of the draw, unless it
// would have to wait for its rate and the other for less. A direction without a
// rate never waits, so one with a rate does not hold it back.
func (t *throttle) turn(drawn int, now int64) int {
	other := Read + Write - drawn
	if due := t.rates[drawn].due; due > float64(now) && t.rates[other].due < due {
		return other
	}
	return drawn
}

// due says whether the unit would have to wait.
func (t *throttle) due(w *worker, u *ioengine.Unit) bool {
	r := &t.rates[u.Dir]
	return r.due > float64(w.now()) && (r.perByte > 0 || r.perIO > 0)
}

// wait waits until the unit is due; false: the job ended meanwhile.
func (t *throttle) wait(w *worker, u *ioengine.Unit) bool {
	if t.flow != nil && !t.flow.wait(t, w) {
		return false
	}
	r := &t.rates[u.Dir]
	if r.perByte == 0 && r.perIO == 0 {
		return true
	}
	for {
		now := w.now()
		left := time.Duration(r.due - float64(now))
		if left <= 0 {
			break
		}
		if w.o.Runtime > 0 {
			left = min(left, time.Duration(w.begin+int64(w.o.Runtime)-now)+time.Millisecond)
		}
		w.sleep(left)
		if w.stopped() || w.timedOut(w.now()) {
			return false
		}
	}
	step := r.perByte*float64(u.Len) + r.perIO
	if r.poisson {
		step *= w.extra.Exp()
	}
	r.due += step
	return true
}

// sleep sleeps in steps, so that the end of the job is seen.
func (w *worker) sleep(d time.Duration) {
	const step = 50 * time.Millisecond
	w.sample.publish(w, w.now())
	for d > 0 && !w.stopped() {
		s := min(d, step)
		time.Sleep(s)
		d -= s
	}
}

// done is called after each I/O.
func (t *throttle) done(w *worker, now int64) {
	t.since++
	if t.think > 0 && t.since >= t.blocks && (w.o.ThinkIOTime == 0 || now-t.lastPause >= int64(w.o.ThinkIOTime)) {
		t.since = 0
		spin := min(w.o.ThinkSpin, t.think)
		for until := now + int64(spin); w.now() < until && !w.stopped(); {
		}
		left := t.think - spin
		if w.o.Runtime > 0 {
			left = min(left, max(time.Duration(w.begin+int64(w.o.Runtime)-w.now()), 0))
		}
		w.sleep(left)
		if w.o.RateIgnoreThink {
			for dir := range t.rates {
				t.rates[dir].due += float64(t.think)
			}
		}
		t.lastPause = w.now()
	}
	if took := now - t.cycleAt; took >= int64(w.o.RateCycle) && w.o.RateCycle > 0 {
		t.least(w, took)
		t.cycleAt = now
	}
}

// least checks rate_min and rate_iops_min over the last cycle.
func (t *throttle) least(w *worker, took int64) {
	seconds := float64(took) / 1e9
	for dir := range t.rates {
		d := &w.st.Dirs[dir]
		bytes, ios := float64(d.Bytes-t.cycleBytes[dir])/seconds, float64(d.IOs-t.cycleIOs[dir])/seconds
		t.cycleBytes[dir], t.cycleIOs[dir] = d.Bytes, d.IOs
		if !dirUsed(w.o, dir) {
			continue
		}
		var err error
		if least := w.o.RateMin[dir]; bytes < float64(least) {
			err = fmt.Errorf("rate_min=%d not met, got %.0f bytes/s: %w", least, bytes, syscall.EIO)
		}
		if least := w.o.RateIOPSMin[dir]; ios < float64(least) {
			err = fmt.Errorf("rate_iops_min=%d not met, got %.0f: %w", least, ios, syscall.EIO)
		}
		if err != nil {
			w.quit(err)
		}
	}
}

// quit ends the job with an error that no I/O has.
func (w *worker) quit(err error) {
	if w.err == nil {
		w.err = w.named(err)
	}
	w.ended.Store(true)
}

// A flow is shared by jobs with the same flow_id: each makes I/O in proportion
// to its weight.
type flow struct {
	total  atomic.Uint64
	weight atomic.Uint64
}

func (f *flow) join(weight uint64) { f.weight.Add(weight) }

func (f *flow) leave(t *throttle) {
	f.weight.Add(-t.weight)
	f.total.Add(-t.mine)
}

// wait waits while this job is ahead of its share.
func (f *flow) wait(t *throttle, w *worker) bool {
	const slack = 2 // blocks, so that jobs do not go in lockstep
	for {
		total, weight := f.total.Load(), f.weight.Load()
		if t.mine*weight <= (total+slack*weight)*t.weight || weight == t.weight {
			t.mine++
			f.total.Add(1)
			return true
		}
		if w.stopped() || w.timedOut(w.now()) {
			return false
		}
		if w.o.FlowSleep > 0 {
			w.sleep(w.o.FlowSleep)
		} else {
			w.yield()
			w.sample.publish(w, w.now())
		}
	}
}

// flows are the flows of a run.
type flows struct {
	mu   sync.Mutex
	byID map[int]*flow
}

func (r *Run) flowOf(id int) *flow {
	r.flows.mu.Lock()
	defer r.flows.mu.Unlock()
	f := r.flows.byID[id]
	if f == nil {
		f = &flow{}
		r.flows.byID[id] = f
	}
	return f
}
