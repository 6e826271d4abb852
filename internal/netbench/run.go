package netbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Run measures every path under every workload, round by round: A B C, B C A,
// C A B.
// What one path does wrong is in its [Result], and the others go on; see
// [File.Failures]. Run itself fails when nothing can be measured at all or when
// ctx ends; then there is no file. Everything it made is gone when it returns;
// if that can't be done, there is an error beside the file.
func Run(ctx context.Context, o Options) (file *File, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	started := time.Now()
	r := &runner{o: &o, series: map[seriesKey]*series{}, absent: map[string]string{}, down: map[string]error{}}
	r.measureOne = r.measure
	scratch, err := newScratch()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, scratch.remove()) }()
	r.dir = scratch.path
	if r.topology, err = newTopology(o.Topology); err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := r.topology.close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
	}()
	restore, err := raiseDescriptorLimit()
	if err != nil {
		return nil, err
	}
	defer restore()

	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	if err := r.rounds(ctx); err != nil {
		return nil, err
	}
	return r.file(started), nil
}

// Failures lists what went wrong on the paths: a run with any is a failed one.
// A peer that is not installed is none.
func (f *File) Failures() (failures []string) {
	for i := range f.Results {
		if r := &f.Results[i]; r.Error != "" {
			failures = append(failures, fmt.Sprintf("%s, %s: %s", r.Path, r.Workload, r.Error))
		}
	}
	return failures
}

// interrupted is what a run ends with when its context does.
type interrupted struct{ cause error }

func (*interrupted) Error() string   { return "interrupted" }
func (e *interrupted) Unwrap() error { return e.cause }

type runner struct {
	o          *Options
	measureOne measureFunc
	dir        string
	topology   *topology
	peers      []*peer // nil for direct; in the order of o.Paths
	described  []Peer
	absent     map[string]string // path to why it can't take part
	down       map[string]error  // path to why it is not tried any more
	series     map[seriesKey]*series
	notes      []string
	cgroups    *cgroups // nil where there are none
	// tracepoint is what system calls are counted by; 0 if they are not.
	tracepoint uint64
}

// measureFunc is one path, one workload, one round.
type measureFunc func(ctx context.Context, p *peer, described *Peer, c cell, progress *Progress) (sample, error)

type seriesKey struct {
	path string
	cell cell
}

// series is what the rounds of one result gave.
type series struct {
	samples []sample
	errs    []roundError
	notes   []string
	latency *hdrhistogram.Histogram
	extra   []extra
}

// extra is a quantity that was not measured in the rounds.
type extra struct {
	metric metric
	value  float64
}

type roundError struct {
	round int
	text  string
}

// prepare finds out which peers there are.
func (r *runner) prepare(ctx context.Context) error {
	for _, path := range r.o.Paths {
		p, err := newPeer(path, r.o.Proxies, r.o.Self, r.o.Relay)
		if err != nil {
			return err
		}
		r.peers = append(r.peers, p)
		if p == nil {
			r.described = append(r.described, Peer{Path: path, Name: r.topology.direct()})
			continue
		}
		d := p.describe(ctx, r.o.Tool)
		if d.Missing != "" {
			r.absent[path] = d.Missing
		}
		r.described = append(r.described, d)
	}
	r.notes = append(r.notes, r.limitations()...)
	var err error
	if r.cgroups, err = findCgroups(); r.o.noCgroups {
		r.cgroups = nil
	} else if err != nil && canAccount {
		r.notes = append(r.notes, fmt.Sprintf("no control group for the proxies (%v): a process that leaves both its group and its parents, and clears its environment, is not accounted for", err))
	}
	if r.tracepoint, err = syscallTracepoint(); err != nil {
		r.notes = append(r.notes, fmt.Sprintf("system calls, and context switches of processes that end, are not counted, that needs root: %v", err))
	}
	return ctx.Err()
}

// shortRound is less than what the clock of the machine's processor time allows.
const shortRound = 300 * time.Millisecond

func shortRoundNote(d time.Duration) string {
	return fmt.Sprintf("rounds of %v are short: the machine's processor time is told to 10 ms", d)
}

// limitations says what this system or user can't measure.
func (r *runner) limitations() (notes []string) {
	if r.o.Topology == TopologyAuto && r.topology.name == TopologyLoopback {
		notes = append(notes, "no network namespaces (they need root): everything runs on loopback, so direct is not forwarded by B")
	}
	if !canAccount {
		notes = append(notes, "processor time, memory and descriptors are measured on Linux only")
	}
	if canAccount && r.o.Duration < shortRound {
		notes = append(notes, shortRoundNote(r.o.Duration))
	}
	if n := r.topology.maxPairs(); r.o.Pairs > n {
		for _, workload := range r.o.Workloads {
			if workload == WorkloadIdle {
				notes = append(notes, fmt.Sprintf("idle: %d pairs instead of %d, as many as B has source ports for", n, r.o.Pairs))
			}
		}
	}
	return notes
}

func (r *runner) rounds(ctx context.Context) error {
	cells := r.o.cells()
	total := r.o.Rounds * len(cells) * len(r.peers)
	if r.tracepoint != 0 {
		for _, c := range cells {
			for _, p := range r.peers {
				if profiled(p, c) {
					total++
				}
			}
		}
	}
	done := 0
	began := time.Now()
	for round := range r.o.Rounds {
		for _, c := range cells {
			for k := range r.peers {
				// Who comes first, and after whom, is not the same in each round.
				i := (k + round) % len(r.peers)
				p := r.peers[i]
				progress := Progress{
					Path: r.o.Paths[i], Workload: c.workload, Streams: c.streams,
					Round: round + 1, Rounds: r.o.Rounds, Done: done, Total: total,
					Left: r.left(began, done, total), RateUnit: rateUnit(c.workload),
				}
				progress.Err = r.one(ctx, p, i, c, round, &progress)
				if ctx.Err() != nil {
					return &interrupted{ctx.Err()}
				}
				done++
				progress.Done, progress.Finished, progress.Left = done, true, r.left(began, done, total)
				r.report(progress)
			}
		}
	}
	if r.tracepoint == 0 {
		return nil
	}
	return r.profileRound(ctx, func(path string, c cell, finished bool) {
		if finished {
			done++
		}
		r.report(Progress{
			Path: path, Workload: c.workload, Streams: c.streams, Round: r.o.Rounds, Rounds: r.o.Rounds,
			Done: done, Total: total, Left: r.left(began, done, total), Finished: finished, Extra: "system calls",
		})
	})
}

func (r *runner) report(p Progress) {
	if r.o.OnProgress != nil {
		r.o.OnProgress(p)
	}
}

// left estimates how long the rest takes.
func (r *runner) left(began time.Time, done, total int) time.Duration {
	if done == 0 {
		const overhead = 300 * time.Millisecond
		return time.Duration(total) * (r.o.Warmup + r.o.Duration + overhead)
	}
	return time.Since(began) / time.Duration(done) * time.Duration(total-done)
}

// one is one path, one workload, one round. It keeps what came of it.
func (r *runner) one(ctx context.Context, p *peer, index int, c cell, round int, progress *Progress) error {
	path := r.o.Paths[index]
	key := seriesKey{path, c}
	s := r.series[key]
	if s == nil {
		s = &series{}
		r.series[key] = s
	}
	if r.absent[path] != "" {
		return nil
	}
	if err := r.down[path]; err != nil {
		s.errs = append(s.errs, roundError{round, "not tried: " + err.Error()})
		return err
	}
	got, err := r.measureOne(ctx, p, &r.described[index], c, progress)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var start *startError
	switch {
	case errors.As(err, &start) && round == 0 && start.refused && isEngine(path) && len(s.samples) == 0:
		// An engine that this system or this build does not have.
		r.absent[path] = start.Error()
		r.described[index].Missing = start.Error()
		return err
	case errors.As(err, &start):
		r.down[path] = err
	}
	if err != nil {
		s.errs = append(s.errs, roundError{round, err.Error()})
		return err
	}
	got.round = round
	progress.Rate = got.values[metricMain(c.workload)]
	return s.add(got)
}

func (r *runner) file(started time.Time) *File {
	return &File{
		Schema:  SchemaVersion,
		Tool:    r.o.Tool,
		Started: started.UTC().Truncate(time.Second),
		Seconds: time.Since(started).Seconds(),
		Machine: describeMachine(),
		Config:  r.o.config(r.topology.name),
		Peers:   r.described,
		Results: r.results(),
		Notes:   append(r.notes, r.disturbances()...),
	}
}

func rateUnit(workload string) string {
	switch workload {
	case WorkloadRR, WorkloadRROpen:
		return "exchanges/s"
	case WorkloadConn:
		return "connections/s"
	case WorkloadIdle:
		return "pairs"
	default:
		return "B/s"
	}
}

// logDir makes the directory of one measurement.
func (r *runner) logDir() (string, error) {
	dir := filepath.Join(r.dir, fmt.Sprint(r.topology.round))
	return dir, os.Mkdir(dir, 0o755)
}
