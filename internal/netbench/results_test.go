package netbench

import (
	"context"
	"slices"
	"testing"
	"time"
)

func TestFigure(t *testing.T) {
	for _, test := range []struct {
		samples          []float64
		median, min, max float64
	}{
		{[]float64{3}, 3, 3, 3},
		{[]float64{3, 1}, 2, 1, 3},
		{[]float64{9, 1, 5}, 5, 1, 9},
		{[]float64{4, 1, 3, 2}, 2.5, 1, 4},
	} {
		f := NewFigure(test.samples)
		if f.Median != test.median || f.Min != test.min || f.Max != test.max || !slices.Equal(f.Samples, test.samples) {
			t.Errorf("of %v: %+v", test.samples, f)
		}
	}
	if f := NewFigure(nil); f != nil {
		t.Errorf("of nothing: %+v", f)
	}
}

// fakeRunner has a series of main figures for each path.
func fakeRunner(workload string, of map[string][]sample) *runner {
	o := DefaultOptions()
	o.Workloads, o.Paths = []string{workload}, nil
	r := &runner{o: &o, topology: &topology{name: TopologyLoopback}, series: map[seriesKey]*series{}, absent: map[string]string{}}
	c := o.cells()[0]
	for path, samples := range of {
		o.Paths = append(o.Paths, path)
		s := &series{}
		for _, one := range samples {
			if one.latency != nil {
				one.values[metricP90], one.values[metricP99], one.values[metricP999], one.values[metricCounted] = 1, 1, 1, 1
			}
			_ = s.add(one)
		}
		r.series[seriesKey{path, c}] = s
	}
	slices.Sort(o.Paths)
	return r
}

func TestRatiosCompareWithinRounds(t *testing.T) {
	at := func(round int, m metric, v float64) sample {
		s := sample{round: round, values: map[metric]float64{m: v}}
		if m == metricP50 {
			s.latency = newHistogram()
			record(s.latency, time.Microsecond)
		}
		return s
	}
	for _, test := range []struct {
		workload           string
		m                  metric
		direct, mine, peer []float64 // 0: no figure in that round
		toDirect, toBest   []float64
	}{
		// More is better, and a round that one of the two lacks is left out.
		{
			WorkloadBulk, metricThroughput,
			[]float64{4, 2, 8},
			[]float64{2, 2, 0},
			[]float64{1, 4, 4},
			[]float64{0.5, 1},
			[]float64{2, 0.5},
		},
		// Less is better.
		{WorkloadRR, metricP50, []float64{10, 20}, []float64{20, 20}, []float64{40, 10}, []float64{0.5, 1}, []float64{2, 0.5}},
	} {
		series := func(values []float64) (samples []sample) {
			for round, v := range values {
				if v > 0 {
					samples = append(samples, at(round, test.m, v))
				}
			}
			return samples
		}
		r := fakeRunner(test.workload, map[string][]sample{
			PathDirect: series(test.direct), PathSplice: series(test.mine), PathNginx: series(test.peer),
			PathSocat: series([]float64{1000}[:0]),
		})
		for _, result := range r.results() {
			if result.Path == PathSplice {
				if !slices.Equal(result.RatioToDirect.Samples, test.toDirect) {
					t.Errorf("%s to direct: %v, want %v", test.workload, result.RatioToDirect.Samples, test.toDirect)
				}
				if result.BestPeer != PathNginx || !slices.Equal(result.RatioToBestPeer.Samples, test.toBest) {
					t.Errorf("%s to %s: %v, want %v", test.workload, result.BestPeer, result.RatioToBestPeer, test.toBest)
				}
			}
			if result.Path == PathNginx && result.RatioToBestPeer != nil {
				t.Errorf("a peer is compared with the best peer: %+v", result.RatioToBestPeer)
			}
		}
	}
}

func TestBestPeer(t *testing.T) {
	one := func(m metric, v float64) []sample { return []sample{{values: map[metric]float64{m: v}}} }
	for _, test := range []struct {
		workload string
		m        metric
		want     string
	}{
		{WorkloadBulk, metricThroughput, PathNginx},
		{WorkloadRR, metricP50, PathGoCopy},
		{WorkloadConn, metricConnections, PathNginx},
		{WorkloadIdle, metricRSSPerPair, PathGoCopy},
	} {
		r := fakeRunner(test.workload, map[string][]sample{
			PathDirect: one(test.m, 1e6), PathWire: one(test.m, 1), PathRun: one(test.m, 1), // none is a peer
			PathGoCopy: one(test.m, 100), PathNginx: one(test.m, 300), PathSocat: one(test.m, 200),
			PathHAProxy: nil,
		})
		if got := r.bestPeer(r.o.cells()[0]); got != test.want {
			t.Errorf("%s: %q, want %q", test.workload, got, test.want)
		}
	}
}

// A peer that failed, be it in one round, is none to be measured by, however
// fast it was in the others.
func TestBestPeerIsOneThatWorks(t *testing.T) {
	one := func(v float64) []sample { return []sample{{values: map[metric]float64{metricThroughput: v}}} }
	r := fakeRunner(WorkloadBulk, map[string][]sample{PathSplice: one(1), PathNginx: one(300), PathGoCopy: one(100)})
	c := r.o.cells()[0]
	r.series[seriesKey{PathNginx, c}].errs = []roundError{{1, "hung"}}
	if got := r.bestPeer(c); got != PathGoCopy {
		t.Errorf("the best peer is %q, and %s failed in a round", got, PathNginx)
	}
	r.series[seriesKey{PathGoCopy, c}].errs = []roundError{{1, "hung"}}
	if got := r.bestPeer(c); got != "" {
		t.Errorf("the best peer is %q, and all have failed", got)
	}
}

// Growth may be 0 or less, of which there is no ratio: that is said.
func TestRatiosThatCantBe(t *testing.T) {
	grew := func(values ...float64) (samples []sample) {
		for round, v := range values {
			samples = append(samples, sample{round: round, values: map[metric]float64{metricRSSPerPair: v}})
		}
		return samples
	}
	r := fakeRunner(WorkloadIdle, map[string][]sample{PathSplice: grew(100, 0, -5, 100), PathGoCopy: grew(200, 200, 200, 200)})
	for _, result := range r.results() {
		if result.Path != PathSplice {
			continue
		}
		if !slices.Equal(result.RatioToBestPeer.Samples, []float64{2, 2}) {
			t.Errorf("ratios: %v", result.RatioToBestPeer.Samples)
		}
		want := []string{
			"round 2: no ratio to gocopy, one of the two figures is not above 0",
			"round 3: no ratio to gocopy, one of the two figures is not above 0",
		}
		if !slices.Equal(result.Notes, want) {
			t.Errorf("notes %q, want %q", result.Notes, want)
		}
	}
}

// The slowest of 999 exchanges is no p99.9.
func TestMaximaAreNoPercentiles(t *testing.T) {
	for _, test := range []struct {
		counts []float64
		want   []string
	}{
		{[]float64{1000, 5000}, nil},
		{[]float64{999, 5000}, []string{"p999"}},
		{[]float64{99}, []string{"p99", "p999"}},
		{[]float64{9}, []string{"p90", "p99", "p999"}},
	} {
		s := &series{}
		for _, n := range test.counts {
			one := sample{latency: newHistogram(), values: map[metric]float64{metricCounted: n}}
			for _, p := range percentiles() {
				one.values[p.metric] = 7
			}
			if err := s.add(one); err != nil {
				t.Fatal(err)
			}
		}
		l := s.latencyFigures(WorkloadRR)
		if !slices.Equal(l.Maxima, test.want) || !slices.Equal(l.Exchanges.Samples, test.counts) {
			t.Errorf("of %v exchanges: %q are maxima, want %q; counted %v", test.counts, l.Maxima, test.want, l.Exchanges.Samples)
		}
	}
}

// What comes first may find the machine in another state than what comes last.
func TestPathsTakeTurnsInBeingFirst(t *testing.T) {
	o := DefaultOptions()
	o.Paths, o.Workloads, o.Rounds = []string{PathDirect, PathCopy, PathSplice}, []string{WorkloadBulk}, 4
	var order []string
	r := &runner{
		o: &o, topology: &topology{name: TopologyLoopback}, series: map[seriesKey]*series{},
		absent: map[string]string{}, down: map[string]error{}, described: make([]Peer, 3), peers: make([]*peer, 3),
	}
	r.measureOne = func(_ context.Context, _ *peer, _ *Peer, _ cell, progress *Progress) (sample, error) {
		order = append(order, progress.Path)
		return sample{values: map[metric]float64{}}, nil
	}
	if err := r.rounds(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		PathDirect, PathCopy, PathSplice, PathCopy, PathSplice, PathDirect,
		PathSplice, PathDirect, PathCopy, PathDirect, PathCopy, PathSplice,
	}
	if !slices.Equal(order, want) {
		t.Errorf("the order is %q, want %q", order, want)
	}
}

// From one address to one other there are ports for so many connections a
// minute, whatever the number of rounds.
func TestRemoteConnectionsFitThePorts(t *testing.T) {
	o := DefaultOptions()
	o.Workloads, o.Streams, o.Rounds = []string{WorkloadBulk, WorkloadConn}, []int{1, 8}, 5
	r := &runner{o: &o, topology: &topology{name: TopologyRemote}}
	all := 0
	for _, c := range o.cells() {
		all += r.load(c, "").MaxConns * o.Rounds
	}
	const least, most = 20000, 28000
	if all < least || all > most {
		t.Errorf("%d connections in all, want %d to %d", all, least, most)
	}
}

func TestErrorsAreSaidOnce(t *testing.T) {
	s := &series{errs: []roundError{{0, "cut"}, {1, "late"}, {2, "cut"}}}
	if got, want := s.errors(), "rounds 1, 3: cut; round 2: late"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func begunWindow(times windowTimes) *window {
	w := newWindow(times, newStart(1, 0))
	w.begin()
	return w
}

func TestWindowIsShared(t *testing.T) {
	if w := begunWindow(windowTimes{warmup: 0, duration: time.Hour}); !w.open() {
		t.Error("without a warm-up the window is not open")
	}
	w := begunWindow(windowTimes{warmup: time.Hour, duration: time.Hour})
	if w.open() {
		t.Error("within the warm-up the window is open")
	}
	// As if the first byte had come earlier.
	w.base = w.base.Add(-90 * time.Minute)
	if !w.open() {
		t.Error("after the warm-up the window is not open")
	}
	w.base = w.base.Add(-90 * time.Minute)
	if w.open() {
		t.Error("after its time the window is open")
	}
}

func TestSinkRemembersLoads(t *testing.T) {
	var loads sinkLoads
	first := loads.of(header{load: 1})
	if loads.of(header{load: 1}) != first || loads.of(header{load: 2}) == first {
		t.Error("streams of one load do not share it, or those of two do")
	}
	for id := range uint64(5000) {
		loads.of(header{load: 10 + id})
	}
	if len(loads.byID) > 1024 || len(loads.oldest) > 1024 || loads.of(header{load: 1}) == first {
		t.Errorf("%d loads are remembered", len(loads.byID))
	}
}

func TestCellsAndTheirDefaults(t *testing.T) {
	o := DefaultOptions()
	o.Workloads = []string{WorkloadBulk, WorkloadConn, WorkloadIdle}
	if got, want := o.cells(), []cell{{WorkloadBulk, 1, 128 << 10}, {WorkloadConn, 8, 64}, {WorkloadIdle, 1000, 64}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	o.Streams, o.Size = []int{1, 4}, 100
	if got, want := o.cells(), []cell{
		{WorkloadBulk, 1, 100}, {WorkloadBulk, 4, 100}, {WorkloadConn, 1, 100}, {WorkloadConn, 4, 100}, {WorkloadIdle, 1000, 100},
	}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
