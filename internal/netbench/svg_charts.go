package netbench

import "slices"

// charts returns what there is to draw of a group: what it is judged by, what
// that costs, and the distribution of latency.
func (g *reportGroup) charts() []*chart {
	throughput := columnOf("throughput_bytes_per_s")
	var charts []*chart
	switch g.Workload {
	case WorkloadIdle:
		charts = append(charts, newBarChart("memory", "Memory per pair",
			"Resident in the proxy; kernel with both ends' sockets", g.Rows,
			barSeries{"process", columnOf("rss_bytes_per_pair")},
			barSeries{"kernel", columnOf("kernel_bytes_per_pair")}))
	case WorkloadMixed:
		charts = append(charts, newBarChart("throughput", "Throughput of the busy streams",
			"Beside stalled readers, and alone", g.Rows,
			barSeries{"beside stalled readers", throughput},
			barSeries{"alone", columnOf("busy_alone_bytes_per_s")}))
	case WorkloadRR, WorkloadRROpen:
		charts = append(charts,
			newBarChart("median", "Median latency", "Round trip, less is better", g.Rows, barSeries{"", columnOf("latency_us.p50")}))
	case WorkloadConn:
		charts = append(charts,
			newBarChart("connections", "Connections per second", "More is better", g.Rows, barSeries{"", columnOf("connections_per_s")}))
	default:
		charts = append(charts,
			newBarChart("throughput", "Throughput", "Payload verified by the receiver, more is better", g.Rows, barSeries{"", throughput}))
	}
	charts = append(charts,
		newBarChart("cpu", "CPU per GB", "CPU-seconds per 10⁹ bytes, less is better", g.Rows,
			barSeries{"proxy", columnOf("proxy_cpu_s_per_gb")},
			barSeries{"whole machine", columnOf("machine_cpu_s_per_gb")}),
		newBarChart("cpu-op", "CPU per "+g.operation(), "CPU time, less is better", g.Rows,
			barSeries{"proxy", columnOf("proxy_cpu_us_per_op")},
			barSeries{"whole machine", columnOf("machine_cpu_us_per_op")}),
		newBarChart("queued", "Queued in front of the consumer", "Most that was sent and not yet consumed, less is better", g.Rows,
			barSeries{"", columnOf("queued_bytes")}),
		newCurveChart("Latency by percentile", g.latencySubtitle(), g.Rows))
	return slices.DeleteFunc(charts, func(c *chart) bool { return c == nil })
}

func (g *reportGroup) operation() string {
	if g.Workload == WorkloadConn {
		return "connection"
	}
	return "exchange"
}

func (g *reportGroup) latencySubtitle() string {
	for _, r := range g.Rows {
		if r.Latency != nil && r.Latency.Open {
			return "From the planned send time"
		}
	}
	if g.Workload == WorkloadConn {
		return "From connect to the end of the exchange"
	}
	return "From send to the whole response"
}

// columnOf returns the column of a JSON key that is known to exist.
func columnOf(key string) column {
	for _, c := range allColumns() {
		if c.key == key {
			return c
		}
	}
	panic("netbench: no column " + key)
}
