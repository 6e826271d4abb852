package netbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// listenTimeout is how long a proxy may take to listen.
	listenTimeout = 5 * time.Second
	// patience is how much longer than planned one measurement may take.
	patience = 45 * time.Second
)

// startError says that a proxy could not be started.
type startError struct {
	error
	refused bool // it ended by itself, and did not listen before
}

func (e *startError) Unwrap() error { return e.error }

// measure is one round of one path under one workload.
func (r *runner) measure(ctx context.Context, p *peer, described *Peer, c cell, progress *Progress) (s sample, err error) {
	load := r.load(c, "")
	outcome, o, err := r.play(ctx, p, described, load, progress, nil)
	if err != nil {
		return s, err
	}
	return newSample(c, load, outcome, o)
}

// play starts sink, proxy and source, drives the load, and ends them again.
// The profiler may be nil.
func (r *runner) play(ctx context.Context, p *peer, described *Peer, load Load, progress *Progress, profile *profiler) (*Outcome, *observer, error) {
	limit := patience + load.Warmup + load.Duration
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r.topology.next()
	dir, err := r.logDir()
	if err != nil {
		return nil, nil, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)

	sink, err := startRole(r.topology.c(), dir, r.o.Self, RoleSink, endpoints{Listen: r.topology.sink()}, nil)
	if err != nil {
		return nil, nil, err
	}
	defer sink.stop()
	listening, err := sink.await(ctx, nil, func(int64) {})
	if err != nil {
		return nil, nil, fmt.Errorf("sink: %w", err)
	}
	load.Target = listening.Address
	var proxy *process
	if p != nil {
		if proxy, load.Target, err = r.startPeer(ctx, p, described, dir, load.Target); err != nil {
			return nil, nil, err
		}
		defer proxy.stop()
	}
	o := &observer{topology: r.topology, sink: sink, proxy: proxy, profile: profile}
	if o.empty, err = takeHoldings(o.family()); err != nil {
		return nil, nil, err
	}
	before, err := r.topology.counters()
	if err != nil {
		return nil, nil, err
	}
	source, err := startRole(r.topology.a(), dir, r.o.Self, RoleSource, load, nil)
	if err != nil {
		return nil, nil, err
	}
	defer source.stop()
	o.source = source

	outcome, err := r.follow(ctx, o, progress)
	if err != nil {
		return nil, nil, r.shortage(before, r.blame(ctx, proxy, limit, err))
	}
	return outcome, o, nil
}

func (r *runner) load(c cell, target string) Load {
	load := Load{
		Workload: c.workload,
		Target:   target,
		Sources:  r.topology.sources(),
		Streams:  c.streams,
		Size:     c.size,
		Warmup:   r.o.Warmup,
		Duration: r.o.Duration,
	}
	switch c.workload {
	case WorkloadIdle:
		load.Pairs = min(c.streams, r.topology.maxPairs())
	case WorkloadRROpen:
		load.Rate = r.o.Rate
	case WorkloadConn:
		load.MaxConns = r.topology.maxConns(r.o.connRounds())
	}
	return load
}

// startPeer starts the proxy and waits until it listens.
func (r *runner) startPeer(ctx context.Context, p *peer, described *Peer, dir, target string) (*process, string, error) {
	listen, err := r.topology.proxy(ctx)
	if err != nil {
		return nil, "", err
	}
	at := endpoints{Listen: listen, Target: target}
	command, configuration, err := p.configure(at, dir)
	if err != nil {
		return nil, "", fmt.Errorf("configure %s: %w", p.path, err)
	}
	described.Command, described.Configuration = portable(command), configuration
	family, err := newFamily(r.cgroups)
	if err != nil {
		return nil, "", err
	}
	var proxy *process
	if p.role != "" {
		proxy, err = startRole(r.topology.b(), dir, r.o.Self, p.role, at, family)
	} else {
		proxy, err = startProcess(r.topology.b(), dir, p.path, command, p.custom, family)
	}
	if err != nil {
		return nil, "", &startError{errors.Join(err, family.end()), true}
	}
	if err := proxy.listening(ctx, listen); err != nil {
		proxy.stop()
		return nil, "", err
	}
	return proxy, listen, nil
}

// portable leaves out where this program happens to lie: a report is read
// elsewhere.
func portable(command []string) []string {
	if self, err := os.Executable(); err == nil && len(command) > 0 && command[0] == self {
		return append([]string{filepath.Base(self)}, command[1:]...)
	}
	return command
}

// listening waits until the process, or one of its namespace, listens there.
func (p *process) listening(ctx context.Context, address string) error {
	const pause = 2 * time.Millisecond
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	deadline := time.NewTimer(listenTimeout)
	defer deadline.Stop()
	for !isListening(p.pid(), address) {
		select {
		case <-ticker.C:
		case <-p.done:
			return &startError{p.failure(), true}
		case <-deadline.C:
			err := fmt.Errorf("%s does not listen on %s after %v", p.name, address, listenTimeout)
			if line := p.lastLine(); line != "" {
				err = fmt.Errorf("%w: %s", err, line)
			}
			return &startError{err, false}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// follow lets the observer look at each phase, until the source has finished.
func (r *runner) follow(ctx context.Context, o *observer, progress *Progress) (*Outcome, error) {
	last, before := time.Now(), int64(0)
	moved := func(n int64) {
		now := time.Now()
		progress.Rate = float64(n-before) / now.Sub(last).Seconds()
		last, before = now, n
		r.report(*progress)
	}
	r.report(*progress)
	for {
		e, err := o.source.await(ctx, o.proxy, moved)
		if err != nil {
			return nil, err
		}
		if e.Outcome != nil {
			return e.Outcome, nil
		}
		if err := o.look(e.Phase); err != nil {
			return nil, err
		}
		if err := o.source.acknowledge(); err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
	}
}

// blame finds out whether the proxy's end is behind what the source reports.
func (r *runner) blame(ctx context.Context, proxy *process, limit time.Duration, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("not finished after %v", limit)
	}
	if proxy == nil {
		return err
	}
	const grace = 500 * time.Millisecond // a broken connection is seen before the process is reaped
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-proxy.done:
		if failure := proxy.failure(); failure.Error() != err.Error() {
			return fmt.Errorf("%w; %w", failure, err)
		}
	case <-timer.C:
	case <-ctx.Done():
	}
	return err
}

// tcpMemorySysctl is what bounds the memory of all TCP sockets together.
const tcpMemorySysctl = "net.ipv4.tcp_mem"

// shortage says so if the kernel ran out of memory for TCP before the failure.
func (r *runner) shortage(before kernelCounters, err error) error {
	after, countErr := r.topology.counters()
	if countErr != nil || after.shortages == before.shortages && !tcpMemoryShort() {
		return err
	}
	return fmt.Errorf("%w; the kernel ran out of memory for TCP meanwhile: see %s", err, tcpMemorySysctl)
}

// observer looks at the machine while a round runs.
type observer struct {
	topology            *topology
	source, sink, proxy *process  // proxy is nil for direct
	profile             *profiler // nil in an ordinary round

	begin, end   usage    // of the measured part
	empty, full  holdings // before and with the load
	haveHoldings bool
	memoryShort  bool // of TCP, while the load ran
}

func (o *observer) look(phase Phase) (err error) {
	if o.profile != nil {
		return o.profile.look(phase, o.family())
	}
	switch phase {
	case PhaseBegin:
		o.empty, err = takeHoldings(o.family())
	case PhaseMeasure, PhaseJoined:
		o.begin, err = o.usage(true)
	case PhaseStop, PhaseRelease:
		if o.end, err = o.usage(false); err == nil {
			o.memoryShort = tcpMemoryShort()
			o.full, err = takeHoldings(o.family())
			o.haveHoldings = true
		}
	}
	return err
}

func (o *observer) usage(begin bool) (usage, error) {
	var load []int
	for _, p := range []*process{o.source, o.sink} {
		if p != nil {
			load = append(load, p.pid())
		}
	}
	return takeUsage(o.topology, o.family(), load, begin)
}

// family is nil for direct.
func (o *observer) family() *family {
	if o.proxy == nil {
		return nil
	}
	return o.proxy.family
}
