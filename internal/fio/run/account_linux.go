package run

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/fio/stat"
	"github.com/spliced-io/spliced/internal/sys"
)

// latencies decides what is measured. Where nothing stands between the choice
// of an I/O and its start, its whole latency is the completion latency, and is
// copied at the end instead of being counted twice.
type latencies struct {
	same [job.Directions]bool
}

func (l *latencies) init(w *worker) {
	for dir := range l.same {
		fills := dir == Write && (w.fillEach || w.verifier != nil)
		l.same[dir] = w.async == nil && !fills
	}
	o := w.o
	hist := func(on bool) *stat.Hist {
		if on {
			return new(stat.Hist)
		}
		return nil
	}
	for dir := range w.st.Dirs {
		d := &w.st.Dirs[dir]
		if !dirUsed(o, dir) && !(dir == Read && w.verifies()) {
			continue
		}
		d.Clat.Hist = hist(o.ClatPercentiles || o.HistLog != nil || l.same[dir] && o.LatPercentiles)
		d.Lat.Hist = hist(o.LatPercentiles && !l.same[dir])
		d.Slat.Hist = hist(o.SlatPercentiles)
	}
	w.st.SyncLat.Hist = hist(o.ClatPercentiles || o.LatPercentiles)
}

func (l *latencies) submitted(w *worker, u *ioengine.Unit, ns, now int64) {
	w.st.Dirs[u.Dir].Slat.Add(uint64(ns))
	if w.logs.slat != nil {
		w.logs.slat.Add(stat.Sample{
			Now: now - w.begin, Value: uint64(ns), Dir: u.Dir, Block: u.Size,
			Offset: u.Block, Issue: u.Issue - w.begin,
		})
	}
	u.Issue = now
}

// finish copies what was not counted twice.
func (l *latencies) finish(w *worker) {
	for dir := range l.same {
		d := &w.st.Dirs[dir]
		if !l.same[dir] || w.o.NoLat {
			continue
		}
		d.Lat.Moments = d.Clat.Moments
		if w.o.LatPercentiles && d.Clat.Hist != nil {
			h := *d.Clat.Hist
			d.Lat.Hist = &h
		}
		if w.o.NoClat {
			d.Clat = stat.Latency{}
		}
	}
	for dir := range w.st.Dirs {
		d := &w.st.Dirs[dir]
		if !w.o.ClatPercentiles {
			d.Clat.Hist = nil
		}
	}
}

// account counts moved bytes and the latency of a unit.
func (w *worker) account(u *ioengine.Unit, moved int, now int64) {
	dir := u.Dir
	d := &w.st.Dirs[dir]
	if w.ramping {
		w.ramp(moved, now)
		w.throttle.done(w, now)
		return
	}
	d.IOs++
	d.Bytes += uint64(moved)
	clat := now - u.Issue
	if !w.o.NoClat || w.lat.same[dir] && !w.o.NoLat {
		d.Clat.Add(uint64(clat))
	}
	whole := clat
	if !w.lat.same[dir] && !w.o.NoLat {
		whole = now - u.Start
		d.Lat.Add(uint64(whole))
	}
	if !w.o.NoLat || !w.o.NoClat {
		w.st.Class(uint64(whole))
	}
	if w.logs.any {
		w.logs.add(w, u, moved, clat, whole, now)
	}
	w.sample.add(w, dir, moved, whole, now)
	if w.throttle.thinks {
		w.throttle.done(w, now)
	}
	w.depth.add(w, whole, now)
}

// ramp counts nothing until ramp_time or ramp_size is over, and then begins.
func (w *worker) ramp(moved int, now int64) {
	w.rampBytes += uint64(moved)
	if w.o.RampTime > 0 && now-w.begin < int64(w.o.RampTime) || w.rampBytes < w.o.RampSize {
		return
	}
	w.ramping = false
	*w.st = stat.Job{
		Name: w.st.Name, Description: w.st.Description, Group: w.st.Group, Members: 1, PID: w.st.PID,
		Continue: w.st.Continue, Started: w.st.Started, LatencyTarget: w.st.LatencyTarget,
		LatencyWindow: w.st.LatencyWindow, LatencyPercent: w.st.LatencyPercent, LatencyDepth: w.st.LatencyDepth,
	}
	w.lat.init(w)
	w.begin = now
	w.phaseBegin()
	w.throttle.start(now)
	w.sample.start(now)
	w.issued = [job.Directions]uint64{}
}

// phaseBegin and phaseEnd measure the time that counts as a direction's
// runtime: of the pass for all directions of the job, of the verification for
// reads.
func (w *worker) phaseBegin() { w.sample.phase = w.now() }

func (w *worker) phaseEnd() {
	took := time.Duration(w.now() - w.sample.phase)
	for dir := range w.st.Dirs {
		verifies := w.verifying && dir == Read
		if verifies || !w.verifying && dirUsed(w.o, dir) {
			w.st.Dirs[dir].Runtime += took
		}
	}
	w.st.Elapsed += took
	w.sample.publish(w, w.now())
}

// live is what others may look at while the worker runs.
type live struct {
	state atomic.Uint32
	mu    sync.Mutex
	Figures
}

// Figures are the counts of a worker at a moment, or of an interval.
type Figures struct {
	Bytes  [stat.Directions]uint64 `json:"bytes"`
	IOs    [stat.Directions]uint64 `json:"ios"`
	LatSum [stat.Directions]uint64 `json:"lat_sum_ns"`
	LatMax [stat.Directions]uint64 `json:"lat_max_ns"` // since the last look
	Begin  int64                   `json:"-"`
	Target uint64                  `json:"-"`
}

func (w *worker) state(letter byte) { w.live.state.Store(uint32(letter)) }

// sampler collects a worker's bandwidth samples, and publishes its counts.
type sampler struct {
	phase    int64
	next     int64 // when to look at the clock's consequences again
	pending  Figures
	bwAt     int64
	bwBytes  [stat.Directions]uint64
	iopsAt   int64
	iopsIOs  [stat.Directions]uint64
	histAt   int64
	winAt    int64
	winBytes [stat.Directions]uint64
	winIOs   [stat.Directions]uint64
}

// publishEvery is how stale live may be.
const publishEvery = int64(5 * time.Millisecond)

func (s *sampler) start(now int64) {
	*s = sampler{phase: now, bwAt: now, iopsAt: now, histAt: now, winAt: now, next: now + publishEvery}
}

func (s *sampler) add(w *worker, dir, moved int, lat, now int64) {
	p := &s.pending
	p.Bytes[dir] += uint64(moved)
	p.IOs[dir]++
	p.LatSum[dir] += uint64(lat)
	p.LatMax[dir] = max(p.LatMax[dir], uint64(lat))
	if now >= s.next {
		s.publish(w, now)
	}
}

func (s *sampler) publish(w *worker, now int64) {
	s.next = now + publishEvery
	l := &w.live
	l.mu.Lock()
	for dir := range s.pending.Bytes {
		l.Bytes[dir] += s.pending.Bytes[dir]
		l.IOs[dir] += s.pending.IOs[dir]
		l.LatSum[dir] += s.pending.LatSum[dir]
		l.LatMax[dir] = max(l.LatMax[dir], s.pending.LatMax[dir])
	}
	l.Begin, l.Target = w.begin, w.target
	l.mu.Unlock()
	s.pending = Figures{}
	if !w.o.NoBW {
		s.rates(w, now)
	}
	if w.logs.any {
		s.windows(w, now)
	}
	if w.run.samples(w.number) {
		w.yield()
	}
}

// rates takes a sample each bwavgtime and iopsavgtime.
func (s *sampler) rates(w *worker, now int64) {
	if took := now - s.bwAt; took >= int64(w.o.BWAvg) {
		for dir := range w.st.Dirs {
			d := &w.st.Dirs[dir]
			if n := d.Bytes - s.bwBytes[dir]; n > 0 || d.Bytes > 0 && w.at(dir) {
				d.BW.Add(uint64(float64(n) / 1024 / (float64(took) / 1e9)))
			}
			s.bwBytes[dir] = d.Bytes
		}
		s.bwAt = now
	}
	if took := now - s.iopsAt; took >= int64(w.o.IOPSAvg) {
		for dir := range w.st.Dirs {
			d := &w.st.Dirs[dir]
			if n := d.IOs - s.iopsIOs[dir]; n > 0 || d.IOs > 0 && w.at(dir) {
				d.IOPS.Add(uint64(float64(n) / (float64(took) / 1e9)))
			}
			s.iopsIOs[dir] = d.IOs
		}
		s.iopsAt = now
	}
}

// at says whether the present phase has I/O in a direction.
func (w *worker) at(dir int) bool {
	if w.verifying {
		return dir == Read
	}
	return dirUsed(w.o, dir)
}

// windows writes the averaged bandwidth and IOPS logs, and histograms.
func (s *sampler) windows(w *worker, now int64) {
	if avg := int64(w.o.LogAvg); avg > 0 && now-s.winAt >= avg {
		seconds := float64(now-s.winAt) / 1e9
		for dir := range w.st.Dirs {
			d := &w.st.Dirs[dir]
			at := stat.Sample{Now: now - w.begin, Dir: dir}
			if n := d.Bytes - s.winBytes[dir]; n > 0 && w.logs.bw != nil {
				at.Value = uint64(float64(n) / 1024 / seconds)
				w.logs.bw.AddRate(at)
			}
			if n := d.IOs - s.winIOs[dir]; n > 0 && w.logs.iops != nil {
				at.Value = uint64(float64(n)/seconds + 0.5)
				w.logs.iops.AddRate(at)
			}
			s.winBytes[dir], s.winIOs[dir] = d.Bytes, d.IOs
		}
		s.winAt = now
	}
	if every := int64(w.o.LogHist); every > 0 && now-s.histAt >= every {
		w.logHistograms(now)
		s.histAt = now
	}
}

// logHistograms logs what was counted since the last time.
func (w *worker) logHistograms(now int64) {
	for dir := range w.st.Dirs {
		d := &w.st.Dirs[dir]
		if w.logs.hist != nil && d.Clat.Hist != nil && d.IOs > 0 {
			w.logs.hist.Add(now-w.begin, dir, int(w.o.BS[dir].Max), d.Clat.Hist)
		}
	}
}

// usage adds what the thread has used since from.
func (w *worker) usage(from sys.Usage) {
	u, err := sys.ThreadUsage()
	if err != nil {
		return
	}
	w.st.User += u.User - from.User
	w.st.System += u.System - from.System
	w.st.Switches += uint64(u.Voluntary + u.Forced - from.Voluntary - from.Forced)
	w.st.MajFault += uint64(u.MajFaults - from.MajFaults)
	w.st.MinFault += uint64(u.Minflts - from.Minflts)
}
