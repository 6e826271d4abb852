package netbench

import "slices"

// NewFigure summarises one sample a round. It returns nil without samples.
func NewFigure(samples []float64) *Figure {
	if len(samples) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(samples))
	n := len(sorted)
	return &Figure{
		Median:  (sorted[(n-1)/2] + sorted[n/2]) / 2,
		Min:     sorted[0],
		Max:     sorted[n-1],
		Samples: slices.Clone(samples),
	}
}

// Main returns the figure that a workload is judged by, its name with the unit
// (the JSON key), and whether more of it is better. The figure is nil if the
// result has none.
func (r *Result) Main() (f *Figure, key string, moreIsBetter bool) {
	switch r.Workload {
	case WorkloadRR, WorkloadRROpen:
		if r.Latency == nil {
			return nil, "latency_us.p50", false
		}
		return &r.Latency.P50, "latency_us.p50", false
	case WorkloadConn:
		return r.Connections, "connections_per_s", true
	case WorkloadIdle:
		return r.RSSPerPair, "rss_bytes_per_pair", false
	default:
		return r.Throughput, "throughput_bytes_per_s", true
	}
}
