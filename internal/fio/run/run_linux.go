package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/fio/stat"
	"github.com/spliced-io/spliced/internal/sys"
)

// Config says how to run.
type Config struct {
	// Info gets progress such as "Laying out IO file", Say what went wrong.
	Info, Say func(line string)
	// AuxPath is where logs and dumps go.
	AuxPath string
	// BandwidthLog writes agg-read_bw.log and its like.
	BandwidthLog bool
}

// A Run is one execution of a set of jobs.
type Run struct {
	conf    Config
	workers []*worker
	epoch   time.Time
	wall    int64 // the epoch in ns since 1970
	logs    sharedLogs
	flows   flows
	sayMu   sync.Mutex
	stop    atomic.Bool
	started atomic.Bool
	disks   *diskWatch
}

// A Result is one job's, or with group_reporting one group's.
type Result struct {
	Options  *job.Options
	Stat     *stat.Job
	Evidence *ioengine.Evidence
	Bits     bool
}

// New plans a run. It touches nothing yet.
func New(set *job.Set, conf Config) (*Run, error) {
	r := &Run{conf: conf, epoch: time.Now()}
	r.wall = r.epoch.UnixNano()
	r.logs.open = map[string]*stat.Log{}
	r.flows.byID = map[int]*flow{}
	group, wave := 0, 0
	for i := range set.Jobs {
		o := &set.Jobs[i]
		traits, ok := ioengine.TraitsOf(o.Engine)
		if !ok {
			_, err := ioengine.New(o.Engine, ioengine.Config{})
			return nil, &job.Error{Job: o.Name, Err: err}
		}
		if o.WaitFor != "" && !earlier(set.Jobs[:i], o.WaitFor) {
			return nil, &job.Error{Job: o.Name, Option: "wait_for=" + o.WaitFor, Err: errors.New("no earlier job has this name")}
		}
		if i > 0 && (o.Stonewall || o.NewGroup) {
			group++
		}
		if i > 0 && o.Stonewall {
			wave++
		}
		for clone := range o.NumJobs {
			w := &worker{
				o: o, traits: traits, clone: clone, number: len(r.workers) + 1, wave: wave, run: r,
				st: &stat.Job{
					Name: o.Name, Description: o.Description, Group: group, Members: 1, PID: os.Getpid(),
					Continue: o.ContinueOnError != "none", LatencyTarget: o.LatencyTarget,
					LatencyWindow: o.LatencyWindow, LatencyPercent: o.LatencyPercentile,
				},
			}
			w.live.state.Store('P')
			r.workers = append(r.workers, w)
		}
	}
	return r, nil
}

func earlier(jobs []job.Options, name string) bool {
	for i := range jobs {
		if jobs[i].Name == name {
			return true
		}
	}
	return false
}

// Workers says how many clones of jobs there are.
func (r *Run) Workers() int { return len(r.workers) }

// Do runs all jobs and returns when the last one has ended and everything is
// freed. Canceling ctx ends the jobs soon, with the results so far.
func (r *Run) Do(ctx context.Context) {
	cancel := context.AfterFunc(ctx, r.endAll)
	defer cancel()
	r.disks = watchDisks(r)
	var ready []*worker
	for _, w := range r.workers {
		if err := r.prepare(w); err != nil {
			// A file that was laid out in part is of no use to anybody.
			for _, name := range w.made {
				_ = os.Remove(name)
			}
			r.broken(w, err)
			continue
		}
		if w.o.CreateOnly {
			w.state('E')
			continue
		}
		ready = append(ready, w)
	}
	r.epoch = time.Now()
	r.wall = r.epoch.UnixNano()
	r.started.Store(true)
	if r.conf.BandwidthLog {
		end := r.aggregate()
		defer end()
	}
	endSteady := r.watchSteady(ready)
	r.schedule(ready)
	endSteady()
	r.disks.end()
	if err := r.logs.close(int64(time.Since(r.epoch))); err != nil {
		r.say("%v", err)
	}
}

func (r *Run) prepare(w *worker) error {
	if err := w.setup(); err != nil {
		return err
	}
	l := &layout{stop: r.stop.Load, say: r.info}
	if err := l.prepare(w); err != nil {
		return err
	}
	return w.enough()
}

// broken records a job that could not start.
func (r *Run) broken(w *worker, err error) {
	w.failed = true
	w.err = err
	w.noteError(err)
	if w.st.Error == 0 {
		w.st.Error, w.st.Cause = int(errnoOf(err)), err.Error()
	}
	w.state('X')
	r.say("%v", w.named(err))
	if w.o.ExitAllOnError {
		r.endAll()
	}
}

func (r *Run) say(format string, args ...any) { r.tell(r.conf.Say, format, args) }

func (r *Run) info(format string, args ...any) { r.tell(r.conf.Info, format, args) }

// tell passes a line on, one at a time.
func (r *Run) tell(to func(line string), format string, args []any) {
	r.sayMu.Lock()
	defer r.sayMu.Unlock()
	if to != nil {
		to(fmt.Sprintf(format, args...))
	}
}

func (r *Run) endAll() {
	r.stop.Store(true)
	for _, w := range r.workers {
		w.ended.Store(true)
	}
}

// schedule starts each wave of jobs when the one before has ended.
func (r *Run) schedule(ready []*worker) {
	ended := map[string]*sync.WaitGroup{} // by job name, for wait_for
	for _, w := range ready {
		if ended[w.o.Name] == nil {
			ended[w.o.Name] = &sync.WaitGroup{}
		}
		ended[w.o.Name].Add(1)
	}
	for len(ready) > 0 {
		wave := ready[0].wave
		var wg sync.WaitGroup
		for _, w := range ready {
			// All that start now are in their flow before one of them makes
			// I/O: it would be ahead of its share.
			if w.wave == wave && w.o.StartDelay[1] == 0 && w.o.WaitFor == "" {
				w.throttle.joinFlow(w)
			}
		}
		for len(ready) > 0 && ready[0].wave == wave {
			w := ready[0]
			ready = ready[1:]
			w.state('I')
			wg.Go(func() {
				defer ended[w.o.Name].Done()
				if wf := ended[w.o.WaitFor]; wf != nil && w.o.WaitFor != w.o.Name {
					wf.Wait()
				}
				r.one(w)
			})
		}
		wg.Wait()
	}
}

// one runs a worker on a thread of its own, which ends with it: its affinity
// and priorities are no other goroutine's business.
func (r *Run) one(w *worker) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends here
		if sys.ThreadID() != os.Getpid() {
			r.body(w)
			return
		}
		// The first thread never ends, and /proc/self/fd is what it has open:
		// it is held here while another one does the work.
		r.one(w)
		runtime.UnlockOSThread()
	}()
	<-done
}

func (r *Run) body(w *worker) {
	defer func() {
		w.finish()
		w.lat.finish(w)
		w.state('_')
		if w.failed {
			w.state('X')
		}
		r.leave(w)
		// Not before exitall: the rest of the flow would be free to run.
		if w.throttle.flow != nil {
			w.throttle.flow.leave(&w.throttle)
		}
	}()
	if w.stopped() {
		return
	}
	if d := w.o.StartDelay; d[1] > 0 {
		w.sleep(d[0] + time.Duration(w.extra.Below(uint64(d[1]-d[0])+1)))
		if w.stopped() {
			return
		}
	}
	err := w.place()
	if err == nil && w.alone() {
		// Where threads share descriptors, each system call counts the users
		// of its file by atomic operations, 3 to 7 % of a small I/O; fio, whose
		// jobs are processes, does not pay that.
		err = sys.UnshareFiles()
	}
	if err == nil {
		err = w.start()
	}
	if err != nil {
		r.broken(w, err)
		return
	}
	w.lat.init(w)
	w.st.PID = sys.ThreadID()
	w.st.Started = time.Now()
	if err := w.hook("prerun", w.o.ExecBefore); err != nil {
		r.broken(w, err)
		return
	}
	from, _ := sys.ThreadUsage()
	err = w.work()
	w.usage(from)
	if e := w.hook("postrun", w.o.ExecAfter); err == nil {
		err = e
	}
	w.st.Steady = w.steady
	if e := w.saveState(); err == nil {
		err = e
	}
	if err == nil {
		err = w.err
	}
	w.complainLast()
	err = w.named(err)
	if err != nil && !errors.Is(err, errFull) {
		w.err, w.failed = err, true
		w.noteError(err)
		r.say("%v", err)
	}
	w.failed = w.failed || w.st.Error != 0
}

// alone says whether the worker's thread opens and closes all that it uses, and
// nothing that others use: no engine with helpers or package net, no log that
// jobs share.
func (w *worker) alone() bool {
	switch w.o.Engine {
	case "sync", "psync", "pvsync", "mmap", "splice":
		return w.o.SubmitMode == "inline" && w.o.PerJobLogs
	}
	return false
}

// place applies CPUs and priorities.
func (w *worker) place() error {
	o := w.o
	if len(o.CPUs) > 0 {
		cpus := o.CPUs
		if o.CPUsPolicy == "split" {
			cpus = cpus[w.clone%len(cpus) : w.clone%len(cpus)+1]
		}
		if err := sys.SetAffinity(cpus); err != nil {
			return fmt.Errorf("cpus_allowed: %w", err)
		}
	}
	if o.Nice != 0 {
		if err := sys.SetNice(o.Nice); err != nil {
			return fmt.Errorf("nice: %w", err)
		}
	}
	if o.Prio != 0 || o.PrioClass != 0 {
		if err := sys.SetIOPriority(o.PrioClass, o.Prio); err != nil {
			return fmt.Errorf("prio: %w", err)
		}
	}
	return nil
}

// leave ends the others where this worker's options say so.
func (r *Run) leave(w *worker) {
	switch {
	case w.failed && w.o.ExitAllOnError:
		r.endAll()
	case w.o.ExitAll || w.failed && w.o.ExitAll:
		for _, other := range r.workers {
			same := other.st.Group == w.st.Group
			if w.o.ExitWhat == "all" || w.o.ExitWhat == "stonewall" && other.wave == w.wave || w.o.ExitWhat == "group" && same {
				other.ended.Store(true)
			}
		}
	}
}

// ExitCode is fio's: how many jobs failed, at most 255.
func (r *Run) ExitCode() int {
	n := 0
	for _, w := range r.workers {
		if w.failed || w.st.Error != 0 {
			n++
		}
	}
	return min(n, 255)
}

// Results returns what the jobs did, groups as one where they asked for it.
func (r *Run) Results() []Result {
	var list []Result
	groups := map[int]int{} // by group: its place in the list
	for _, w := range r.workers {
		if !w.o.Stats {
			continue
		}
		if w.o.GroupReporting {
			if i, ok := groups[w.st.Group]; ok {
				list[i].Stat.Merge(w.st)
				continue
			}
			groups[w.st.Group] = len(list)
		}
		st := *w.st
		for dir := range st.Dirs { // Merge adds to the histograms
			for _, l := range []*stat.Latency{&st.Dirs[dir].Slat, &st.Dirs[dir].Clat, &st.Dirs[dir].Lat} {
				if l.Hist != nil && w.o.GroupReporting {
					h := *l.Hist
					l.Hist = &h
				}
			}
		}
		res := Result{Options: w.o, Stat: &st, Bits: w.traits.Bits}
		if e, ok := w.engine.(ioengine.Witnessed); ok {
			res.Evidence = e.Evidence()
		}
		list = append(list, res)
	}
	for i := range list {
		if list[i].Options.Unified == "mixed" {
			list[i].Stat.Mix()
		}
	}
	return list
}
