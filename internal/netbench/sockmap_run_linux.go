package netbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
)

// RunSockmap measures ways from socket to socket, with and without a BPF program
// that redirects, round by round, and each with each consumer. A mode that this
// system can't load and a consumer that it can't run are missing, with the
// reason; what loses or changes a byte has failed: see [File.Failures]. Run
// itself fails when nothing can be measured at all or when ctx ends; then there
// is no file.
//
// Nothing is pinned and no process is started: whatever ends this one, nothing
// of the run is left.
func RunSockmap(ctx context.Context, o SockmapOptions) (*File, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	started := time.Now()
	r := &sockmapRunner{o: &o, pattern: newPattern(), series: map[seriesKey]*series{}, absent: map[seriesKey]string{}}
	var err error
	if o.Delay == 0 {
		if r.file, err = newPatternFile(r.pattern); err != nil {
			return nil, err
		}
		defer r.file.Close()
	}
	if err := r.rounds(ctx); err != nil {
		return nil, err
	}
	return r.report(started), nil
}

type sockmapRunner struct {
	o       *SockmapOptions
	pattern *pattern
	file    *os.File // holds the pattern; nil if it is sent from memory
	series  map[seriesKey]*series
	absent  map[seriesKey]string // why it can't take part
}

func (r *sockmapRunner) key(mode, consumer string) seriesKey {
	return seriesKey{mode, cell{sockmapWorkloads + consumer, 1, r.o.Size}}
}

// rounds has each round begin with another mode: what the one before leaves
// behind hits each of them.
func (r *sockmapRunner) rounds(ctx context.Context) error {
	total := r.o.Rounds * len(r.o.Modes) * len(r.o.Consumers)
	began, done := time.Now(), 0
	for round := range r.o.Rounds {
		for i := range r.o.Modes {
			mode, _ := sockmapModeOf(r.o.Modes[(i+round)%len(r.o.Modes)])
			for _, consumer := range r.o.Consumers {
				progress := Progress{
					Path: mode.name, Workload: sockmapWorkloads + consumer, Streams: 1,
					Round: round + 1, Rounds: r.o.Rounds, Done: done, Total: total,
					RateUnit: "B/s", Left: r.left(began, done, total),
				}
				r.show(progress)
				progress.Rate, progress.Err = r.one(ctx, mode, consumer, round)
				if ctx.Err() != nil {
					return &interrupted{ctx.Err()}
				}
				done++
				progress.Done, progress.Finished, progress.Left = done, true, r.left(began, done, total)
				r.show(progress)
			}
		}
	}
	return nil
}

func (r *sockmapRunner) show(p Progress) {
	if r.o.OnProgress != nil {
		r.o.OnProgress(p)
	}
}

// left estimates how long the rest takes.
func (r *sockmapRunner) left(began time.Time, done, total int) time.Duration {
	if done == 0 {
		return time.Duration(total) * (r.o.Warmup + r.o.Duration + r.o.Delay)
	}
	return time.Since(began) / time.Duration(done) * time.Duration(total-done)
}

// one is one mode with one consumer in one round. It keeps what came of it.
func (r *sockmapRunner) one(ctx context.Context, mode sockmapMode, consumer string, round int) (rate float64, err error) {
	key := r.key(mode.name, consumer)
	s := r.series[key]
	if s == nil {
		s = &series{}
		r.series[key] = s
	}
	if r.absent[key] != "" {
		return 0, nil
	}
	got, err := r.measure(ctx, mode, consumer)
	var refused *refusedError
	var blind *blindError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.As(err, &refused) && len(s.samples) == 0, errors.As(err, &blind):
		r.absent[key] = err.Error()
		return 0, err
	case err != nil:
		s.errs = append(s.errs, roundError{round, err.Error()})
		return 0, err
	}
	got.round = round
	for _, note := range got.notes {
		if !slices.Contains(s.notes, note) {
			s.notes = append(s.notes, note)
		}
	}
	got.notes = nil
	return got.values[metricThroughput], s.add(got)
}

// stuck is how long nothing may arrive of what was sent.
const stuck = 10 * time.Second

// measure plays one mode.
func (r *sockmapRunner) measure(ctx context.Context, mode sockmapMode, consumer string) (sample, error) {
	rig, err := newSockmapRig(mode, r.o.Parse)
	if err != nil {
		return sample{}, err
	}
	defer rig.close()
	by, err := newTaker(consumer, rig.sockets[socketC2])
	if err != nil {
		return sample{}, err
	}
	defer by.close()
	f := newFlight(int64(r.o.Size))
	c := &sockmapConsumer{
		flight: f, pattern: r.pattern, fd: rig.sockets[socketC2], buf: make([]byte, 128<<10),
		times: windowTimes{r.o.Warmup, r.o.Duration}, delay: r.o.Delay, limit: r.o.MaxQueued, patience: stuck,
	}
	memory, err := watchMemory()
	if err != nil {
		return sample{}, err
	}
	var others sync.WaitGroup
	others.Go((&sockmapSender{
		flight: f, to: rig.sockets[mode.sender], room: rig.sockets[mode.room], size: r.o.Size, file: r.file, pattern: r.pattern,
	}).run)
	if mode.forwarded {
		others.Go((&sockmapForwarder{flight: f, from: rig.sockets[socketP1], to: rig.sockets[socketP2]}).run)
	}
	// The thread's processor time is read.
	runtime.LockOSThread()
	err = c.run(ctx, by)
	runtime.UnlockOSThread()
	f.fail(err) // whatever it was, it is over
	others.Wait()
	grown := memory.end()
	if err == nil {
		err = r.saw(rig, c.total)
	}
	if err != nil {
		return sample{}, err
	}
	return r.sample(c, grown), nil
}

// saw says so if the bytes did not go the way that the mode is named after.
func (r *sockmapRunner) saw(rig *sockmapRig, bytes int64) error {
	if rig.mode.program == noProgram {
		return nil
	}
	// A message that found no room is sent again, and then the kernel takes the
	// verdict that it has (psock->eval in net/ipv4/tcp_bpf.c): every other one
	// may be missing from the count.
	part := int64(1)
	if !rig.mode.received() {
		part = 4
	}
	seen, err := rig.seen()
	switch {
	case err != nil:
		return err
	case seen.Refused > 0:
		return fmt.Errorf("the program could not redirect %d times", seen.Refused)
	case int64(seen.Bytes)*part < bytes:
		return fmt.Errorf("the program has seen %d of the %d bytes that arrived", seen.Bytes, bytes)
	}
	return nil
}

func (r *sockmapRunner) sample(c *sockmapConsumer, grown int64) sample {
	used := c.end.machine.since(c.begin.machine)
	took := seconds(c.begin.machine.at, c.end.machine.at)
	moved := float64(c.end.total - c.begin.total)
	s := sample{values: map[metric]float64{
		metricThroughput:  moved / took,
		metricQueued:      float64(c.flight.peak),
		metricQueueMemory: float64(grown),
	}}
	if gb := moved / 1e9; gb > 0 {
		s.values[metricMachineCPU] = used.busy / gb
		s.values[metricSoftirqCPU] = used.softirq / gb
		s.values[metricReceiverCPU] = (c.end.thread - c.begin.thread).Seconds() / gb
	}
	if total := used.total(); total > 0 {
		s.values[metricSteal] = used.steal / total
	}
	if c.flight.held {
		s.notes = append(s.notes, fmt.Sprintf("the sender was held back at %s in front of the consumer, by this program and not by the kernel", sizeText(r.o.MaxQueued)))
	}
	return s
}

func (r *sockmapRunner) report(started time.Time) *File {
	f := &File{
		Schema:  SchemaVersion,
		Tool:    r.o.Tool,
		Started: started.UTC().Truncate(time.Second),
		Seconds: time.Since(started).Seconds(),
		Machine: describeMachine(),
		Config:  r.o.config(),
		Notes:   (&runner{series: r.series}).disturbances(),
	}
	if r.o.Duration < shortRound {
		f.Notes = append(f.Notes, shortRoundNote(r.o.Duration))
	}
	for _, name := range r.o.Modes {
		mode, _ := sockmapModeOf(name)
		f.Peers = append(f.Peers, mode.describe(r.o.Parse))
	}
	for _, consumer := range r.o.Consumers {
		for _, name := range r.o.Modes {
			f.Results = append(f.Results, r.result(name, consumer))
		}
	}
	return f
}

func (r *sockmapRunner) result(name, consumer string) Result {
	key := r.key(name, consumer)
	s := r.series[key]
	result := Result{
		Path: name, Workload: key.cell.workload, Streams: 1, Size: r.o.Size,
		Rounds:  len(s.samples),
		Missing: r.absent[key],
		Error:   s.errors(),
		Notes:   s.notes,
	}
	s.fill(&result)
	mode, _ := sockmapModeOf(name)
	if other := r.series[r.key(mode.normal(), consumer)]; other != nil && name != mode.normal() {
		result.RatioToNormal, _ = s.ratio(metricThroughput, other, true)
	}
	if other := r.series[r.key(name, "read")]; other != nil && consumer != "read" {
		result.RatioToRead, _ = s.ratio(metricThroughput, other, true)
	}
	return result
}
