package netbench

import (
	"fmt"
	"slices"
	"strings"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// results makes one of each series, in the order of workloads and paths.
func (r *runner) results() (results []Result) {
	for _, c := range r.o.cells() {
		best := r.bestPeer(c)
		for _, path := range r.o.Paths {
			results = append(results, r.result(path, c, best))
		}
	}
	return results
}

func (r *runner) result(path string, c cell, best string) Result {
	s := r.series[seriesKey{path, c}]
	result := Result{
		Path: path, Workload: c.workload, Streams: c.streams, Size: c.size,
		Rounds:  len(s.samples),
		Missing: r.absent[path],
		Error:   s.errors(),
		Notes:   slices.Clone(s.notes),
	}
	if c.workload == WorkloadIdle {
		result.Streams = min(c.streams, r.topology.maxPairs())
	}
	s.fill(&result)
	compare := func(other string) *Figure {
		main, moreIsBetter := judgedBy(c.workload)
		ratio, without := s.ratio(main, r.series[seriesKey{other, c}], moreIsBetter)
		for _, round := range without {
			result.Notes = append(result.Notes, fmt.Sprintf("round %d: no ratio to %s, one of the two figures is not above 0", round+1, other))
		}
		return ratio
	}
	if path != PathDirect && r.series[seriesKey{PathDirect, c}] != nil {
		result.RatioToDirect = compare(PathDirect)
	}
	if best != "" && IsOwn(path) {
		if result.RatioToBestPeer = compare(best); result.RatioToBestPeer != nil {
			result.BestPeer = best
		}
	}
	return result
}

// errors says each once, with the rounds that ended so.
func (s *series) errors() string {
	var texts []string
	rounds := map[string][]string{}
	for _, e := range s.errs {
		if rounds[e.text] == nil {
			texts = append(texts, e.text)
		}
		rounds[e.text] = append(rounds[e.text], fmt.Sprint(e.round+1))
	}
	for i, text := range texts {
		word := "round"
		if len(rounds[text]) > 1 {
			word = "rounds"
		}
		texts[i] = fmt.Sprintf("%s %s: %s", word, strings.Join(rounds[text], ", "), text)
	}
	return strings.Join(texts, "; ")
}

// disturbances says what else the machine did.
func (r *runner) disturbances() (notes []string) {
	const least = 0.05
	var foreign, steal []float64
	for _, s := range r.series {
		for _, sample := range s.samples {
			if v, ok := sample.values[metricForeign]; ok {
				foreign = append(foreign, v)
			}
			if v, ok := sample.values[metricSteal]; ok {
				steal = append(steal, v)
			}
		}
	}
	for _, d := range []struct {
		f    *Figure
		what string
	}{
		{NewFigure(foreign), "other programs used %.0f %% of the machine in the median round, up to %.0f %%"},
		{NewFigure(steal), "the hypervisor kept %.0f %% of the processors in the median round, up to %.0f %%"},
	} {
		if d.f != nil && d.f.Max >= least {
			notes = append(notes, fmt.Sprintf(d.what, d.f.Median*100, d.f.Max*100))
		}
	}
	return notes
}

// fill sets the figures.
func (s *series) fill(r *Result) {
	for m, field := range map[metric]**Figure{
		metricThroughput:       &r.Throughput,
		metricExchanges:        &r.Exchanges,
		metricConnections:      &r.Connections,
		metricScheduleLag:      &r.ScheduleLagUs,
		metricProxyCPU:         &r.ProxyCPU,
		metricMachineCPU:       &r.MachineCPU,
		metricSoftirqCPU:       &r.SoftirqCPU,
		metricProxyCPUPerOp:    &r.ProxyCPUPerOp,
		metricMachineCPUPerOp:  &r.MachineCPUPerOp,
		metricForeign:          &r.ForeignCPUShare,
		metricSwitches:         &r.ContextSwitches,
		metricSwitchesPerOp:    &r.SwitchesPerOp,
		metricSyscalls:         &r.Syscalls,
		metricSyscallsPerOp:    &r.SyscallsPerOp,
		metricRetransmits:      &r.Retransmits,
		metricCwnd:             &r.Cwnd,
		metricRTT:              &r.RTTUs,
		metricSndbuf:           &r.SndbufBytes,
		metricRcvbuf:           &r.RcvbufBytes,
		metricPipeBytes:        &r.PipeBytes,
		metricPipes:            &r.Pipes,
		metricRSSPerPair:       &r.RSSPerPair,
		metricKernelPerPair:    &r.KernelPerPair,
		metricFDsPerPair:       &r.FDsPerPair,
		metricPipesPerPair:     &r.PipesPerPair,
		metricProcessesPerPair: &r.ProcessesPerPair,
		metricIdleCPU:          &r.IdleCPUShare,
		metricAlone:            &r.BusyAlone,
		metricLoss:             &r.BusyLoss,
		metricHeld:             &r.HeldPerStalled,
		metricReceiverCPU:      &r.ReceiverCPU,
		metricQueued:           &r.Queued,
		metricQueueMemory:      &r.QueueMemory,
	} {
		*field = s.figure(m)
	}
	r.Latency = s.latencyFigures(r.Workload)
}

func (s *series) latencyFigures(workload string) *Latency {
	if s.latency == nil {
		return nil
	}
	hdr, err := encode(s.latency)
	if err != nil {
		hdr = "" // memory is the only thing that it can fail for
	}
	exchanges := s.figure(metricCounted)
	var maxima []string
	for _, p := range percentiles() {
		if !isPercentile(p.percentile, exchanges.Min) {
			maxima = append(maxima, p.name)
		}
	}
	return &Latency{
		Maxima:           maxima,
		Exchanges:        exchanges,
		P50:              *s.figure(metricP50),
		P90:              *s.figure(metricP90),
		P99:              *s.figure(metricP99),
		P999:             *s.figure(metricP999),
		Open:             workload == WorkloadRROpen,
		Mode:             s.mode(workload),
		WakeupInterrupts: s.figure(metricWakeups),
		HDR:              hdr,
		Curve:            percentileCurve(s.latency),
	}
}

// mode judges whether idle processors slept between the exchanges: each wake-up
// of one that did is an interrupt that another has sent.
func (s *series) mode(workload string) string {
	wakeups := s.figure(metricWakeups)
	if workload == WorkloadConn || wakeups == nil || wakeups.Max == 0 {
		return ModeUnknown
	}
	const sleeps, stays = 0.5, 0.1 // per exchange, which has two messages or more
	switch {
	case wakeups.Min >= sleeps:
		return ModeSleeping
	case wakeups.Max <= stays:
		return ModeAwake
	default:
		return ModeMixed
	}
}

// isPercentile tells whether at least one of n exchanges is beyond it. If none
// is, it is but the slowest.
func isPercentile(percentile, n float64) bool {
	const rounding = 1e-9
	return (100-percentile)/100*n >= 1-rounding
}

// percentileCurve thins the histogram to what a chart shows.
func percentileCurve(h *hdrhistogram.Histogram) (points []CurvePoint) {
	const nsPerUs = 1e3
	percentiles := []float64{
		0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 96.5, 98, 99, 99.5, 99.75, 99.9, 99.95, 99.99, 99.999, 100,
	}
	for _, p := range percentiles {
		if p < 100 && !isPercentile(p, float64(h.TotalCount())) {
			continue
		}
		points = append(points, CurvePoint{p, float64(h.ValueAtPercentile(p)) / nsPerUs})
	}
	return points
}

// judgedBy is the metric of [Result.Main].
func judgedBy(workload string) (m metric, moreIsBetter bool) {
	switch workload {
	case WorkloadRR, WorkloadRROpen:
		return metricP50, false
	case WorkloadConn:
		return metricConnections, true
	case WorkloadIdle:
		return metricRSSPerPair, false
	default:
		return metricThroughput, true
	}
}

// bestPeer returns the path that is neither direct nor our own, failed in no
// round and has the best median, or "".
func (r *runner) bestPeer(c cell) (best string) {
	main, moreIsBetter := judgedBy(c.workload)
	var bestMedian float64
	for _, path := range r.o.Paths {
		if path == PathDirect || IsOwn(path) {
			continue
		}
		s := r.series[seriesKey{path, c}]
		f := s.figure(main)
		if f == nil || f.Median <= 0 || len(s.errs) > 0 {
			continue
		}
		if best == "" || (f.Median > bestMedian) == moreIsBetter && f.Median != bestMedian {
			best, bestMedian = path, f.Median
		}
	}
	return best
}
