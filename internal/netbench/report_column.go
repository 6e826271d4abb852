package netbench

// column is one figure of a result as the reports show it and diff judges it.
type column struct {
	key      string // the JSON key
	head     string
	unit     string // of plain quantities; the others choose theirs
	quantity quantity
	better   int  // 1: more is better, -1: less is better, 0: neither, and never judged
	brief    bool // on the terminal too
	get      func(*Result) *Figure
}

// columnsOf returns the columns for a workload, the figure that it is judged by
// first, then the ratios, then the price.
func columnsOf(workload string) []column {
	all := allColumns()
	_, main, _ := (&Result{Workload: workload}).Main()
	ordered := make([]column, 0, len(all))
	for _, first := range []bool{true, false} {
		for _, c := range all {
			if isFirst := c.key == main; isFirst == first {
				ordered = append(ordered, c)
			}
		}
	}
	return ordered
}

func allColumns() []column {
	latency := func(get func(*Latency) *Figure) func(*Result) *Figure {
		return func(r *Result) *Figure {
			if r.Latency == nil {
				return nil
			}
			return get(r.Latency)
		}
	}
	return []column{
		{"ratio_to_direct", "to direct", "×", plainQuantity, 0, true, func(r *Result) *Figure { return r.RatioToDirect }},
		{"ratio_to_best_peer", "to best peer", "×", plainQuantity, 0, true, func(r *Result) *Figure { return r.RatioToBestPeer }},
		{"ratio_to_normal", "to normal", "×", plainQuantity, 0, true, func(r *Result) *Figure { return r.RatioToNormal }},
		{"ratio_to_read", "to read", "×", plainQuantity, 0, true, func(r *Result) *Figure { return r.RatioToRead }},

		{"throughput_bytes_per_s", "throughput", "", rateQuantity, 1, true, func(r *Result) *Figure { return r.Throughput }},
		{"latency_us.p50", "p50", "", microsQuantity, -1, true, latency(func(l *Latency) *Figure { return &l.P50 })},
		{"latency_us.p90", "p90", "", microsQuantity, -1, false, latency(func(l *Latency) *Figure { return &l.P90 })},
		{"latency_us.p99", "p99", "", microsQuantity, -1, true, latency(func(l *Latency) *Figure { return &l.P99 })},
		{"latency_us.p999", "p99.9", "", microsQuantity, -1, true, latency(func(l *Latency) *Figure { return &l.P999 })},
		{"connections_per_s", "connections", "/s", plainQuantity, 1, true, func(r *Result) *Figure { return r.Connections }},
		{"exchanges_per_s", "exchanges", "/s", plainQuantity, 1, true, func(r *Result) *Figure { return r.Exchanges }},
		{"rss_bytes_per_pair", "resident/pair", "", byteQuantity, -1, true, func(r *Result) *Figure { return r.RSSPerPair }},
		{"kernel_bytes_per_pair", "kernel/pair", "", byteQuantity, -1, true, func(r *Result) *Figure { return r.KernelPerPair }},
		{"fds_per_pair", "descriptors", "/pair", plainQuantity, -1, true, func(r *Result) *Figure { return r.FDsPerPair }},
		{"pipes_per_pair", "pipes", "/pair", plainQuantity, -1, true, func(r *Result) *Figure { return r.PipesPerPair }},
		{"processes_per_pair", "processes", "/pair", plainQuantity, -1, false, func(r *Result) *Figure { return r.ProcessesPerPair }},
		{"idle_cpu_share", "idle CPU", "", shareQuantity, -1, true, func(r *Result) *Figure { return r.IdleCPUShare }},
		{"busy_alone_bytes_per_s", "busy alone", "", rateQuantity, 0, true, func(r *Result) *Figure { return r.BusyAlone }},
		{"busy_loss", "busy loss", "", shareQuantity, -1, true, func(r *Result) *Figure { return r.BusyLoss }},
		{"held_bytes_per_stalled", "held/stalled", "", byteQuantity, -1, true, func(r *Result) *Figure { return r.HeldPerStalled }},

		{"proxy_cpu_s_per_gb", "proxy CPU", "s/GB", plainQuantity, -1, true, func(r *Result) *Figure { return r.ProxyCPU }},
		{"machine_cpu_s_per_gb", "machine CPU", "s/GB", plainQuantity, -1, true, func(r *Result) *Figure { return r.MachineCPU }},
		{"receiver_cpu_s_per_gb", "receiver CPU", "s/GB", plainQuantity, -1, true, func(r *Result) *Figure { return r.ReceiverCPU }},
		{"queued_bytes", "queued", "", byteQuantity, -1, true, func(r *Result) *Figure { return r.Queued }},
		{"queue_memory_bytes", "memory grown", "", byteQuantity, 0, true, func(r *Result) *Figure { return r.QueueMemory }},
		{"softirq_cpu_s_per_gb", "of it softirq", "s/GB", plainQuantity, 0, false, func(r *Result) *Figure { return r.SoftirqCPU }},
		{"proxy_cpu_us_per_op", "proxy CPU", "µs/op", plainQuantity, -1, true, func(r *Result) *Figure { return r.ProxyCPUPerOp }},
		{"machine_cpu_us_per_op", "machine CPU", "µs/op", plainQuantity, -1, true, func(r *Result) *Figure { return r.MachineCPUPerOp }},
		{"foreign_cpu_share", "foreign CPU", "", shareQuantity, 0, false, func(r *Result) *Figure { return r.ForeignCPUShare }},
		{"context_switches_per_gb", "switches", "/GB", plainQuantity, 0, false, func(r *Result) *Figure { return r.ContextSwitches }},
		{"context_switches_per_op", "switches", "/op", plainQuantity, 0, false, func(r *Result) *Figure { return r.SwitchesPerOp }},
		{"syscalls_per_gb", "system calls", "/GB", plainQuantity, 0, false, func(r *Result) *Figure { return r.Syscalls }},
		{"syscalls_per_op", "system calls", "/op", plainQuantity, 0, false, func(r *Result) *Figure { return r.SyscallsPerOp }},

		{"retransmits", "retransmits", "segments", plainQuantity, 0, false, func(r *Result) *Figure { return r.Retransmits }},
		{"cwnd_segments", "cwnd", "segments", plainQuantity, 0, false, func(r *Result) *Figure { return r.Cwnd }},
		{"rtt_us", "RTT", "", microsQuantity, 0, false, func(r *Result) *Figure { return r.RTTUs }},
		{"sndbuf_bytes", "send buffer", "", byteQuantity, 0, false, func(r *Result) *Figure { return r.SndbufBytes }},
		{"rcvbuf_bytes", "receive buffer", "", byteQuantity, 0, false, func(r *Result) *Figure { return r.RcvbufBytes }},
		{"pipe_bytes", "largest pipe", "", byteQuantity, 0, false, func(r *Result) *Figure { return r.PipeBytes }},
		{"pipes", "pipes", "", plainQuantity, 0, false, func(r *Result) *Figure { return r.Pipes }},
		{"schedule_lag_us", "p99 sender late", "", microsQuantity, 0, true, func(r *Result) *Figure { return r.ScheduleLagUs }},
		{"latency_us.exchanges", "counted", "/round", plainQuantity, 0, false, latency(func(l *Latency) *Figure { return l.Exchanges })},
		{
			"latency_us.wakeup_interrupts_per_exchange", "wake-ups", "/exchange", plainQuantity, 0, false,
			latency(func(l *Latency) *Figure { return l.WakeupInterrupts }),
		},
	}
}

// figure returns the column's figure of r, nil if it was not measured.
func (c column) figure(r *Result) *Figure {
	f := c.get(r)
	if f == nil || len(f.Samples) == 0 && f.Median == 0 && f.Max == 0 {
		return nil
	}
	return f
}

// scale returns how the column is written for all rows, with its unit.
func (c column) scale(rows []*Result) scale {
	var figures []*Figure
	for _, r := range rows {
		if f := c.figure(r); f != nil {
			figures = append(figures, f)
		}
	}
	return scaleOf(c.quantity, c.unit, figures)
}

// filled returns the columns of a group in which at least one row has a figure.
func (g *reportGroup) filled(briefOnly bool) []column {
	var kept []column
	for _, c := range columnsOf(g.Workload) {
		if briefOnly && !c.brief {
			continue
		}
		for _, r := range g.Rows {
			if c.figure(r) != nil {
				kept = append(kept, c)
				break
			}
		}
	}
	return kept
}
