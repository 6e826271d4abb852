package netbench

import (
	"context"
	"fmt"
	"time"
)

// profiler counts system calls in a round of its own, which gives no other
// figure: counting slows down every system call of the machine.
type profiler struct {
	tracepoint uint64
	counter    *syscallCounter // while it counts
	calls      uint64
	began      time.Time
	took       time.Duration
}

const (
	profileWarmup   = 100 * time.Millisecond
	profileDuration = 300 * time.Millisecond
)

// look starts and stops the count.
func (p *profiler) look(phase Phase, group int) (err error) {
	switch phase {
	case PhaseMeasure:
		p.counter, err = countSyscalls(p.tracepoint, group)
		p.began = time.Now()
	case PhaseStop:
		if p.counter != nil {
			p.calls, err = p.counter.count()
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
	rate := float64(counter.calls) / counter.took.Seconds()
	if outcome.BytesPerS > 0 {
		s.extra = append(s.extra, extra{metricSyscalls, rate / (outcome.BytesPerS / 1e9)})
	}
	if outcome.OpsPerS > 0 {
		s.extra = append(s.extra, extra{metricSyscallsPerOp, rate / outcome.OpsPerS})
	}
	return nil
}
