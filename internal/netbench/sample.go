package netbench

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// metric names a quantity of one round.
type metric int

const (
	metricThroughput metric = iota
	metricExchanges
	metricConnections
	metricPairs
	metricP50
	metricP90
	metricP99
	metricP999
	metricCounted // exchanges that these are of
	metricWakeups
	metricScheduleLag
	metricProxyCPU
	metricMachineCPU
	metricSoftirqCPU
	metricProxyCPUPerOp
	metricMachineCPUPerOp
	metricForeign
	metricSwitches
	metricSwitchesPerOp
	metricRetransmits
	metricCwnd
	metricRTT
	metricSndbuf
	metricRcvbuf
	metricPipeBytes
	metricPipes
	metricRSSPerPair
	metricKernelPerPair
	metricFDsPerPair
	metricPipesPerPair
	metricProcessesPerPair
	metricIdleCPU
	metricAlone
	metricLoss
	metricHeld
	metricSteal
	metricSyscalls
	metricSyscallsPerOp
	metricReceiverCPU
	metricQueued
	metricQueueMemory
)

// percentiles are those of [Latency], by their JSON keys.
func percentiles() []namedPercentile {
	return []namedPercentile{{"p50", metricP50, 50}, {"p90", metricP90, 90}, {"p99", metricP99, 99}, {"p999", metricP999, 99.9}}
}

type namedPercentile struct {
	name       string
	metric     metric
	percentile float64
}

// metricMain is what [Result.Main] is made of, or for the progress line's sake
// a rate.
func metricMain(workload string) metric {
	switch workload {
	case WorkloadRR, WorkloadRROpen:
		return metricExchanges
	case WorkloadConn:
		return metricConnections
	case WorkloadIdle:
		return metricPairs
	default:
		return metricThroughput
	}
}

// sample is what one round gave.
type sample struct {
	round   int
	values  map[metric]float64
	latency *hdrhistogram.Histogram
	notes   []string
}

func newSample(c cell, load Load, out *Outcome, o *observer) (s sample, err error) {
	s = sample{values: map[metric]float64{}, notes: out.Notes}
	used := o.end.since(o.begin)
	switch c.workload {
	case WorkloadIdle:
		s.idle(load, o, used)
	case WorkloadRR, WorkloadRROpen:
		s.values[metricExchanges] = out.OpsPerS
		s.perOp(out, o, used)
		if err = s.latencies(out); err == nil && c.workload == WorkloadRROpen {
			err = s.fixedRate(load, out)
		}
	case WorkloadConn:
		s.values[metricConnections] = out.OpsPerS
		s.perOp(out, o, used)
		err = s.latencies(out)
	default:
		s.values[metricThroughput] = out.BytesPerS
		if out.AloneBytesS > 0 {
			s.values[metricAlone] = out.AloneBytesS
			s.values[metricLoss] = 1 - out.BytesPerS/out.AloneBytesS
			s.values[metricHeld] = out.HeldPerStalled
		}
		s.perGB(out, o, used)
	}
	if err != nil {
		return s, err
	}
	s.transport(out)
	s.machine(o, used)
	return s, nil
}

// perGB relates rates to rates: so it does not matter that the observer's
// window and the sink's are not exactly the same.
func (s *sample) perGB(out *Outcome, o *observer, used usage) {
	perS := out.BytesPerS / 1e9
	if !canAccount || perS <= 0 {
		return
	}
	gb := perS * seconds(o.begin.machine.at, used.machine.at)
	s.values[metricMachineCPU] = used.machine.busy / gb
	s.values[metricSoftirqCPU] = used.machine.softirq / gb
	if o.proxy != nil {
		gb := perS * seconds(o.begin.proxy.at, used.proxy.at)
		s.values[metricProxyCPU] = used.proxy.cpu / gb
		if !used.proxy.uncounted {
			s.values[metricSwitches] = float64(used.proxy.switches) / gb
		}
		if o.haveHoldings {
			// Some have pipes for other ends from their start.
			s.values[metricPipes] = float64(o.full.pipes - o.empty.pipes)
			if o.full.pipes > o.empty.pipes {
				s.values[metricPipeBytes] = float64(o.full.largestPipe)
			}
		}
	}
}

func (s *sample) perOp(out *Outcome, o *observer, used usage) {
	if !canAccount || out.OpsPerS <= 0 {
		return
	}
	const micro = 1e6
	ops := out.OpsPerS * seconds(o.begin.machine.at, used.machine.at)
	s.values[metricMachineCPUPerOp] = used.machine.busy / ops * micro
	s.values[metricWakeups] = float64(used.machine.ipis) / ops
	if o.proxy != nil {
		ops := out.OpsPerS * seconds(o.begin.proxy.at, used.proxy.at)
		s.values[metricProxyCPUPerOp] = used.proxy.cpu / ops * micro
		if !used.proxy.uncounted {
			s.values[metricSwitchesPerOp] = float64(used.proxy.switches) / ops
		}
	}
}

func (s *sample) idle(load Load, o *observer, used usage) {
	pairs := float64(load.Pairs)
	s.values[metricPairs] = pairs
	if !canAccount {
		return
	}
	s.values[metricKernelPerPair] = float64(o.full.kernel-o.empty.kernel) / pairs
	if o.proxy == nil {
		return
	}
	s.values[metricRSSPerPair] = float64(o.full.memory-o.empty.memory) / pairs
	s.values[metricFDsPerPair] = float64(o.full.descriptors-o.empty.descriptors) / pairs
	s.values[metricPipesPerPair] = float64(o.full.pipes-o.empty.pipes) / pairs
	s.values[metricProcessesPerPair] = float64(o.full.processes-o.empty.processes) / pairs
	if took := seconds(o.begin.proxy.at, used.proxy.at); took > 0 {
		s.values[metricIdleCPU] = used.proxy.cpu / took
	}
}

func (s *sample) latencies(out *Outcome) (err error) {
	if s.latency, err = decodeHistogram(out.Latency); err != nil {
		return err
	}
	const nsPerUs = 1e3
	for _, p := range percentiles() {
		s.values[p.metric] = float64(s.latency.ValueAtPercentile(p.percentile)) / nsPerUs
	}
	s.values[metricCounted] = float64(s.latency.TotalCount())
	if out.ScheduleLag != "" {
		lag, err := decodeHistogram(out.ScheduleLag)
		if err != nil {
			return err
		}
		s.values[metricScheduleLag] = float64(lag.ValueAtPercentile(99)) / nsPerUs
	}
	return nil
}

// fixedRate notes what makes an open loop's figures those of something else: a
// rate that was not reached, and a sender that was late itself.
func (s *sample) fixedRate(load Load, out *Outcome) error {
	const enough = 0.95
	asked := load.Rate * load.Duration.Seconds()
	missing := asked - out.OpsPerS*load.Duration.Seconds()
	// Each stream may have one exchange less than its share, by rounding.
	if missing > (1-enough)*asked && missing > float64(load.Streams) {
		s.notes = append(s.notes, fmt.Sprintf("the rate was not reached: %.0f exchanges per second of %.0f", out.OpsPerS, load.Rate))
	}
	if out.ScheduleLag == "" {
		return nil
	}
	lag, err := decodeHistogram(out.ScheduleLag)
	if err != nil {
		return err
	}
	const median = 50
	if late, all := lag.ValueAtPercentile(median), s.latency.ValueAtPercentile(median); late > all/2 {
		s.notes = append(s.notes, fmt.Sprintf("the sender itself was late, by %v of a p50 of %v: more than half of that is not the path's",
			time.Duration(late), time.Duration(all)))
	}
	return nil
}

func (s *sample) transport(out *Outcome) {
	for m, value := range map[metric]float64{
		metricCwnd:   float64(out.TCP.Cwnd),
		metricRTT:    out.TCP.RTTUs,
		metricSndbuf: float64(out.Sndbuf),
		metricRcvbuf: float64(out.Rcvbuf),
	} {
		if value > 0 {
			s.values[m] = value
		}
	}
}

func (s *sample) machine(o *observer, used usage) {
	total := used.machine.total()
	if !canAccount || total <= 0 {
		return
	}
	s.values[metricRetransmits] = float64(used.kernel.retransmits)
	if used.kernel.shortages > 0 || o.memoryShort {
		s.notes = append(s.notes, "the kernel was short of memory for TCP: see "+tcpMemorySysctl)
	}
	s.values[metricSteal] = used.machine.steal / total
	if o.source == nil {
		return // this process is the source: its own use is not told apart
	}
	// What ran as a soft interrupt may also be in the time of the process that
	// it interrupted: so this is the least that others can have used.
	foreign := used.machine.busy - used.machine.softirq - used.machine.irq - used.proxy.cpu - used.load.cpu
	s.values[metricForeign] = max(foreign, 0) / total
}

func (s *series) add(got sample) error {
	if got.latency != nil {
		if s.latency == nil {
			s.latency = newHistogram()
		}
		s.latency.Merge(got.latency)
	}
	for _, note := range got.notes {
		s.notes = append(s.notes, fmt.Sprintf("round %d: %s", got.round+1, note))
	}
	s.samples = append(s.samples, got)
	return nil
}

// figure returns the quantity over the rounds; nil if no round has it.
func (s *series) figure(m metric) *Figure {
	var values []float64
	for _, sample := range s.samples {
		if v, ok := sample.values[m]; ok {
			values = append(values, v)
		}
	}
	for _, e := range s.extra {
		if e.metric == m {
			values = append(values, e.value)
		}
	}
	return NewFigure(values)
}

// ratio divides what the same rounds of two series gave; inverted where less
// is better. without are the rounds that have no ratio because one of the two
// figures is 0 or less, as growth may be.
func (s *series) ratio(m metric, other *series, moreIsBetter bool) (f *Figure, without []int) {
	theirs := map[int]float64{}
	for _, sample := range other.samples {
		if v, ok := sample.values[m]; ok {
			theirs[sample.round] = v
		}
	}
	var values []float64
	for _, sample := range s.samples {
		mine, ok := sample.values[m]
		their, also := theirs[sample.round]
		switch {
		case !ok || !also:
		case mine <= 0 || their <= 0:
			without = append(without, sample.round)
		case moreIsBetter:
			values = append(values, mine/their)
		default:
			values = append(values, their/mine)
		}
	}
	return NewFigure(values), without
}

// decodeHistogram is the inverse of encode.
func decodeHistogram(text string) (*hdrhistogram.Histogram, error) {
	h, err := hdrhistogram.Decode([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("decode histogram: %w", err)
	}
	return h, nil
}
