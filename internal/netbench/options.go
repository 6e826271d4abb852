package netbench

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Options says what [Run] is to measure. [Options.Validate] finds what is
// wrong with it.
type Options struct {
	Topology  string   // TopologyAuto, TopologyLoopback, TopologyNetns or TopologyLocal
	Paths     []string // see [Paths], and the names of Proxies
	Workloads []string // see [Workloads]
	Proxies   []Proxy
	Rounds    int
	Duration  time.Duration // measured part of each round
	Warmup    time.Duration
	Streams   []int   // nil: what suits the workload
	Size      int     // 0: what suits the workload
	Pairs     int     // of idle
	Rate      float64 // of rr-open, exchanges per second
	Tool      string  // name and version, for the report

	// Self starts this program in a role, whose name is added: see [RunRole].
	Self []string
	// Relay starts this program's relay; --engine, the engine, where to listen
	// and the target are added.
	Relay []string

	noCgroups bool // as where there are none

	// OnProgress is called from one goroutine, often.
	OnProgress func(Progress)
}

// Progress says where a run is.
type Progress struct {
	Path, Workload string
	Streams        int
	Round, Rounds  int
	Done, Total    int     // measurements
	Rate           float64 // now, or over the measured part when Finished
	RateUnit       string  // of Rate: "B/s", "exchanges/s", "connections/s", "pairs"
	Finished       bool    // this measurement is over
	Extra          string  // what is measured after the rounds
	Err            error   // what it failed with
	Left           time.Duration
}

// DefaultOptions measure for about a minute.
func DefaultOptions() Options {
	return Options{
		Topology:  TopologyAuto,
		Paths:     []string{PathDirect, PathGoCopy, PathAuto, PathHAProxySplice, PathNginx},
		Workloads: []string{WorkloadBulk, WorkloadRR},
		Rounds:    5,
		Duration:  time.Second,
		Warmup:    200 * time.Millisecond,
		Pairs:     1000,
		Rate:      2000,
	}
}

// Validate returns a [UsageError] that names the first wrong value.
func (o *Options) Validate() error {
	if !slices.Contains([]string{TopologyAuto, TopologyLoopback, TopologyNetns, TopologyLocal}, o.Topology) {
		return usagef("topology %q: want auto, loopback, netns or netns-local", o.Topology)
	}
	names := map[string]bool{}
	for _, p := range o.Proxies {
		if names[p.Name] {
			return usagef("proxy %q is given twice", p.Name)
		}
		names[p.Name] = true
	}
	if err := distinct("path", o.Paths); err != nil {
		return err
	}
	for _, path := range o.Paths {
		if _, err := newPeer(path, o.Proxies, nil, nil); err != nil {
			return err
		}
	}
	if err := distinct("workload", o.Workloads); err != nil {
		return err
	}
	for _, workload := range o.Workloads {
		if !slices.Contains(Workloads(), workload) {
			return usagef("workload %q: want one of %s", workload, strings.Join(Workloads(), ", "))
		}
	}
	return o.validateNumbers()
}

func (o *Options) validateNumbers() error {
	const most = 1 << 16
	if err := validateRounds(o.Rounds, o.Duration, o.Warmup, o.Size); err != nil {
		return err
	}
	switch {
	case o.Pairs < 1 || o.Pairs > most:
		return usagef("pairs %d: want 1 to %d", o.Pairs, most)
	case !(o.Rate > 0) || math.IsInf(o.Rate, 0) || o.Rate > 1e6:
		return usagef("rate %g: want more than 0, and at most a million per second", o.Rate)
	}
	for _, c := range o.cells() {
		if least := float64(c.streams) / o.Duration.Seconds(); c.workload == WorkloadRROpen && o.Rate < least {
			return usagef("rate %g: want %g or more, an exchange of each of %d streams within %v", o.Rate, least, c.streams, o.Duration)
		}
	}
	for i, n := range o.Streams {
		if slices.Contains(o.Streams[:i], n) {
			return usagef("streams %d: given twice", n)
		}
		if n < 1 || n > 4096 {
			return usagef("streams %d: want 1 to 4096", n)
		}
	}
	return nil
}

// validateRounds checks what every kind of run has. A size of 0 is allowed.
func validateRounds(rounds int, duration, warmup time.Duration, size int) error {
	const (
		longest  = time.Hour
		shortest = 10 * time.Millisecond
	)
	switch {
	case rounds < 1 || rounds > 1000:
		return usagef("rounds %d: want 1 to 1000", rounds)
	case duration < shortest || duration > longest:
		return usagef("duration %v: want %v to %v", duration, shortest, longest)
	case warmup < 0 || warmup > longest:
		return usagef("warm-up %v: want 0s to %v", warmup, longest)
	case size < 0 || size > maxChunk:
		return usagef("size %d: want 1 to %d bytes", size, maxChunk)
	}
	return nil
}

func distinct(what string, names []string) error {
	if len(names) == 0 {
		return usagef("no %s given", what)
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return usagef("%s %q is given twice", what, name)
		}
	}
	return nil
}

// cell is what one measurement is of, over all rounds and paths.
type cell struct {
	workload string
	streams  int
	size     int
}

// cells are the workloads, each with each number of streams that makes a
// difference.
func (o *Options) cells() (cells []cell) {
	for _, workload := range o.Workloads {
		c := cell{workload, 1, 64}
		switch workload {
		case WorkloadBulk, WorkloadBulkBoth, WorkloadMixed:
			c.size = 128 << 10
		case WorkloadConn:
			c.streams = 8
		case WorkloadIdle:
			c.streams = o.Pairs
		}
		if o.Size > 0 {
			c.size = o.Size
		}
		if workload == WorkloadIdle || len(o.Streams) == 0 {
			cells = append(cells, c)
			continue
		}
		for _, n := range o.Streams {
			c.streams = n
			cells = append(cells, c)
		}
	}
	return cells
}

// connRounds is how many rounds of the workload conn there are.
func (o *Options) connRounds() int {
	n := 0
	for _, c := range o.cells() {
		if c.workload == WorkloadConn {
			n += o.Rounds
		}
	}
	return n
}

func (o *Options) config(topology string) Config {
	return Config{
		Topology:  topology,
		Paths:     o.Paths,
		Workloads: o.Workloads,
		Rounds:    o.Rounds,
		DurationS: o.Duration.Seconds(),
		WarmupS:   o.Warmup.Seconds(),
		Streams:   o.Streams,
		Size:      o.Size,
		Pairs:     o.Pairs,
		RatePerS:  o.Rate,
	}
}

// splitIPv4 takes a numeric host:port apart.
func splitIPv4(address string) (host [4]byte, port uint16, err error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return host, 0, err
	}
	if !ap.Addr().Is4() {
		return host, 0, usagef("address %q: want an IPv4 one", address)
	}
	return ap.Addr().As4(), ap.Port(), nil
}
