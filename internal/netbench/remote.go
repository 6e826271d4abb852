package netbench

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"
)

// RunSource measures one path to a sink that somebody else has started, on
// this machine or another: [Run] without the proxies. Neither the proxy's nor
// the sink's cost is known here; the machine's is this one's.
func RunSource(ctx context.Context, name, target string, o Options) (*File, error) {
	o.Topology, o.Paths = TopologyLoopback, []string{name}
	if err := o.validateRemote(target); err != nil {
		return nil, err
	}
	started := time.Now()
	restore, err := raiseDescriptorLimit()
	if err != nil {
		return nil, err
	}
	defer restore()
	r := &runner{
		o: &o, topology: &topology{name: TopologyRemote}, peers: []*peer{nil},
		described: []Peer{{Path: name, Name: target}},
		series:    map[seriesKey]*series{}, absent: map[string]string{}, down: map[string]error{},
		notes: []string{"source and sink were started on their own: processor time is that of the source's machine, the proxy's is not known"},
	}
	r.measureOne = r.measureRemote(target)
	if err := r.rounds(ctx); err != nil {
		return nil, err
	}
	return r.file(started), nil
}

func (o *Options) validateRemote(target string) error {
	if o.Paths[0] == "" {
		return usagef("name %q: want one", o.Paths[0])
	}
	if !speakable(o.Paths[0]) {
		return usagef("name %q: want printable characters, at most %d bytes", o.Paths[0], maxName)
	}
	host, port, err := net.SplitHostPort(target)
	if n, convErr := strconv.Atoi(port); err != nil || convErr != nil || n < 1 || n > 65535 || host == "" {
		return usagef("address %q: want host:port", target)
	}
	probe := *o
	probe.Paths = []string{PathDirect}
	return probe.Validate()
}

// measureRemote runs the load in this process.
func (r *runner) measureRemote(target string) measureFunc {
	return func(ctx context.Context, _ *peer, _ *Peer, c cell, progress *Progress) (s sample, err error) {
		watch := observer{topology: r.topology}
		var lookErr error
		source := NewSource(func(p Phase) {
			if err := watch.look(p); err != nil && lookErr == nil {
				lookErr = err
			}
		})
		load := r.load(c, target)
		r.report(*progress)
		outcome, err := source.Run(ctx, load)
		if err != nil {
			return s, err
		}
		if lookErr != nil {
			return s, fmt.Errorf("look at the machine: %w", lookErr)
		}
		return newSample(c, load, outcome, &watch)
	}
}
