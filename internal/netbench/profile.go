package netbench

import (
	"context"
	"fmt"
	"time"
)

// profiler counts system calls and context switches in a round of its own,
// which gives no other figure: counting slows down every system call of the
// machine.
type profiler struct {
	tracepoint uint64
	counter    *callCounter // while it counts
	calls      uint64
	switches   uint64
	began      time.Time
	took       time.Duration
}

const (
	profileWarmup   = 100 * time.Millisecond
	profileDuration = 300 * time.Millisecond
)

// look starts and stops the count.
func (p *profiler) look(phase Phase, f *family) (err error) {
	switch phase {
	case PhaseMeasure:
		p.counter, err = countCalls(p.tracepoint, f)
		p.began = time.Now()
	case PhaseStop:
		if p.counter != nil {
			p.calls, p.switches, err = p.counter.count()
			p.took = time.Since(p.began)
		}
	}
	return err
}

func (p *profiler) close() {
	if p.counter != nil {
		p.counter.close()
	}
}

// profiled tells whether a measurement has system calls to count.
func profiled(p *peer, c cell) bool {
	return p != nil && c.workload != WorkloadIdle && c.workload != WorkloadMixed
}

// profileRound counts the system calls of each path under each workload.
func (r *runner) profileRound(ctx context.Context, progress func(path string, c cell, finished bool)) error {
	for _, c := range r.o.cells() {
		for i, p := range r.peers {
			path := r.o.Paths[i]
			s := r.series[seriesKey{path, c}]
			if !profiled(p, c) {
				continue
			}
			progress(path, c, false)
			if len(s.samples) > 0 && r.down[path] == nil {
				if err := r.profile(ctx, p, i, c, s); err != nil {
					s.notes = append(s.notes, fmt.Sprintf("system calls are not counted: %v", err))
				}
			}
			if ctx.Err() != nil {
				return &interrupted{ctx.Err()}
			}
			progress(path, c, true)
		}
	}
	return nil
}

func (r *runner) profile(ctx context.Context, p *peer, index int, c cell, s *series) error {
	load := r.load(c, "")
	load.Warmup = min(load.Warmup, profileWarmup)
	load.Duration = min(load.Duration, profileDuration)
	counter := &profiler{tracepoint: r.tracepoint}
	defer counter.close()
	outcome, _, err := r.play(ctx, p, &r.described[index], load, &Progress{}, counter)
	if err != nil {
		return err
	}
	for _, counted := range []struct {
		n            uint64
		perGB, perOp metric
	}{
		{counter.calls, metricSyscalls, metricSyscallsPerOp},
		{counter.switches, metricSwitches, metricSwitchesPerOp},
	} {
		rate := float64(counted.n) / counter.took.Seconds()
		if outcome.BytesPerS > 0 {
			s.addExtra(counted.perGB, rate/(outcome.BytesPerS/1e9))
		}
		if outcome.OpsPerS > 0 {
			s.addExtra(counted.perOp, rate/outcome.OpsPerS)
		}
	}
	return nil
}

// addExtra adds a quantity that no round has.
func (s *series) addExtra(m metric, value float64) {
	if s.figure(m) == nil {
		s.extra = append(s.extra, extra{m, value})
	}
}
