package netbench

import "time"

// SchemaVersion is the version of [File]. It grows when a key changes its
// meaning or goes away; new keys do not change it.
const SchemaVersion = 1

// File is the whole outcome of a run: what --json writes and what diff and the
// reports read. A key that is absent was not measured; Notes says why where
// that is not obvious.
//
// Units: bytes, seconds and microseconds as the keys say; a GB is 10^9 bytes.
type File struct {
	Schema  int       `json:"schema"`
	Tool    string    `json:"tool"` // name and version of this program
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"` // wall time of the whole run
	Machine Machine   `json:"machine"`
	Config  Config    `json:"config"`
	Peers   []Peer    `json:"peers"`
	Results []Result  `json:"results"`
	Notes   []string  `json:"notes,omitempty"` // what could not be measured, and what disturbed the run
}

// Machine is where a run was made.
type Machine struct {
	Hostname          string            `json:"hostname"`
	OS                string            `json:"os"`
	Arch              string            `json:"arch"`
	Kernel            string            `json:"kernel"`
	CPUModel          string            `json:"cpu_model,omitempty"`
	CPUs              int               `json:"cpus"`
	MemoryBytes       int64             `json:"memory_bytes,omitempty"`
	Virtual           bool              `json:"virtual"` // a hypervisor is below: expect steal and slow wake-ups
	IdleDriver        string            `json:"idle_driver,omitempty"`
	CongestionControl string            `json:"congestion_control,omitempty"`
	Go                string            `json:"go"`
	Sysctls           map[string]string `json:"sysctls,omitempty"` // those that bound buffers, pipes and ports
	Mitigations       map[string]string `json:"mitigations,omitempty"`
}

// Config is what was asked for.
type Config struct {
	Topology  string   `json:"topology"` // loopback, netns, or remote (source and sink on their own)
	Paths     []string `json:"paths"`
	Workloads []string `json:"workloads"`
	Rounds    int      `json:"rounds"`
	DurationS float64  `json:"duration_s"` // measured part of one round of one path
	WarmupS   float64  `json:"warmup_s"`   // before it, not measured
	Streams   []int    `json:"streams"`
	Size      int      `json:"size,omitempty"` // 0: each workload's own default
	Pairs     int      `json:"pairs"`          // of idle
	RatePerS  float64  `json:"rate_per_s"`     // of rr-open, over all streams together

	// Of bench sockmap.
	ParseBytes     int     `json:"strp_bytes,omitempty"`       // a stream parser's messages
	DelayS         float64 `json:"delay_consumer_s,omitempty"` // the consumer takes nothing for so long
	MaxQueuedBytes int64   `json:"max_queued_bytes,omitempty"` // the sender may be so far ahead of the consumer
}

// Peer is one path as it was really run.
type Peer struct {
	Path          string   `json:"path"`
	Name          string   `json:"name"`
	Version       string   `json:"version,omitempty"`
	Command       []string `json:"command,omitempty"`
	Configuration string   `json:"configuration,omitempty"` // the file, verbatim, with the addresses of the last round
	Missing       string   `json:"missing,omitempty"`       // why it could not take part
}

// Figure is one quantity over the rounds.
type Figure struct {
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Samples []float64 `json:"samples"` // one a round, in the order of the rounds
}

// Latency is a distribution in microseconds, one figure a percentile: each
// sample is that percentile of one round.
type Latency struct {
	P50  Figure `json:"p50"`
	P90  Figure `json:"p90"`
	P99  Figure `json:"p99"`
	P999 Figure `json:"p999"`
	// Maxima names those of them that are no percentile but the slowest
	// exchange, as a round had too few: p999 of less than 1000.
	Maxima []string `json:"maxima,omitempty"`
	// Exchanges is how many a round has, or connections.
	Exchanges *Figure `json:"exchanges,omitempty"`
	// Open is true when latency is counted from the planned send time.
	Open bool `json:"open_loop"`
	// Mode says whether idle processors slept between messages, which decides
	// a latency on small virtual machines: see the Mode constants.
	Mode string `json:"mode,omitempty"`
	// WakeupInterrupts is how many inter-processor interrupts there were for
	// each exchange: a processor that sleeps is woken by one, a polling one is
	// not. Mode is judged by it.
	WakeupInterrupts *Figure `json:"wakeup_interrupts_per_exchange,omitempty"`
	// HDR is the histogram of all rounds together in nanoseconds: HdrHistogram
	// V2, compressed, base64.
	HDR string `json:"hdr,omitempty"`
	// Curve is the same distribution for charts.
	Curve []CurvePoint `json:"curve,omitempty"`
}

// CurvePoint is one point of a percentile curve.
type CurvePoint struct {
	Percentile float64 `json:"percentile"` // 0 to 100
	Us         float64 `json:"us"`
}

// The values of Latency.Mode.
const (
	ModeSleeping = "idle processor sleeps" // wake-ups are part of the latency
	ModeAwake    = "processor stays awake"
	ModeMixed    = "mixed" // some rounds in one mode, some in the other: compare the spread, not the median
	ModeUnknown  = "unknown"
)

// Result is one path under one workload.
type Result struct {
	Path     string `json:"path"`
	Workload string `json:"workload"`
	Streams  int    `json:"streams"` // connections at a time; pairs for idle
	Size     int    `json:"size"`    // bytes of a write (bulk, mixed) or of a message (rr, conn)
	Rounds   int    `json:"rounds"`  // that gave figures

	Throughput    *Figure  `json:"throughput_bytes_per_s,omitempty"` // payload verified by the receivers, both ways added
	Exchanges     *Figure  `json:"exchanges_per_s,omitempty"`
	Connections   *Figure  `json:"connections_per_s,omitempty"`
	Latency       *Latency `json:"latency_us,omitempty"`
	ScheduleLagUs *Figure  `json:"schedule_lag_us,omitempty"` // p99 of how late the open-loop sender itself was

	ProxyCPU         *Figure `json:"proxy_cpu_s_per_gb,omitempty"`   // user and system time of all processes of the proxy
	MachineCPU       *Figure `json:"machine_cpu_s_per_gb,omitempty"` // all processors, with hard and soft interrupts
	SoftirqCPU       *Figure `json:"softirq_cpu_s_per_gb,omitempty"` // of these, soft interrupts
	ProxyCPUPerOp    *Figure `json:"proxy_cpu_us_per_op,omitempty"`  // for rr and conn: per exchange or connection
	MachineCPUPerOp  *Figure `json:"machine_cpu_us_per_op,omitempty"`
	ForeignCPUShare  *Figure `json:"foreign_cpu_share,omitempty"` // of all processor time, used by neither proxy, source, sink nor interrupts
	ContextSwitches  *Figure `json:"context_switches_per_gb,omitempty"`
	SwitchesPerOp    *Figure `json:"context_switches_per_op,omitempty"`
	Syscalls         *Figure `json:"syscalls_per_gb,omitempty"`
	SyscallsPerOp    *Figure `json:"syscalls_per_op,omitempty"`
	Retransmits      *Figure `json:"retransmits,omitempty"` // segments, in all namespaces of the topology
	Cwnd             *Figure `json:"cwnd_segments,omitempty"`
	RTTUs            *Figure `json:"rtt_us,omitempty"`
	SndbufBytes      *Figure `json:"sndbuf_bytes,omitempty"` // granted, at the source's socket
	RcvbufBytes      *Figure `json:"rcvbuf_bytes,omitempty"` // granted, at the sink's socket
	PipeBytes        *Figure `json:"pipe_bytes,omitempty"`   // granted, the largest of the proxy's pipes
	Pipes            *Figure `json:"pipes,omitempty"`        // of the proxy while the load ran
	RSSPerPair       *Figure `json:"rss_bytes_per_pair,omitempty"`
	KernelPerPair    *Figure `json:"kernel_bytes_per_pair,omitempty"` // growth of the whole machine's: with A's and C's sockets, which direct has alone
	FDsPerPair       *Figure `json:"fds_per_pair,omitempty"`
	PipesPerPair     *Figure `json:"pipes_per_pair,omitempty"`
	ProcessesPerPair *Figure `json:"processes_per_pair,omitempty"`
	IdleCPUShare     *Figure `json:"idle_cpu_share,omitempty"` // of one processor, by the proxy while all pairs were idle
	BusyAlone        *Figure `json:"busy_alone_bytes_per_s,omitempty"`
	BusyLoss         *Figure `json:"busy_loss,omitempty"`              // 1 − throughput beside stalled readers ÷ throughput alone
	HeldPerStalled   *Figure `json:"held_bytes_per_stalled,omitempty"` // taken from the sender of a stalled reader: buffers at both ends and in the path

	ReceiverCPU *Figure `json:"receiver_cpu_s_per_gb,omitempty"` // of bench sockmap: the consumer's thread
	Queued      *Figure `json:"queued_bytes,omitempty"`          // of bench sockmap: most that was sent and not consumed
	QueueMemory *Figure `json:"queue_memory_bytes,omitempty"`    // of bench sockmap: by how much the machine's available memory shrank at most

	// RatioToDirect and RatioToBestPeer compare the workload's main figure
	// (see [Result.Main]) so that more than 1 is better than direct, or than
	// the best of the peers; nil without one to compare with. Each sample
	// compares within one round.
	RatioToDirect   *Figure `json:"ratio_to_direct,omitempty"`
	RatioToBestPeer *Figure `json:"ratio_to_best_peer,omitempty"`
	BestPeer        string  `json:"best_peer,omitempty"`
	// RatioToNormal and RatioToRead, of bench sockmap, compare with the mode
	// without a program, and with the consumer that reads.
	RatioToNormal *Figure `json:"ratio_to_normal,omitempty"`
	RatioToRead   *Figure `json:"ratio_to_read,omitempty"`

	Missing string   `json:"missing,omitempty"` // the peer is not installed
	Error   string   `json:"error,omitempty"`   // rounds that failed and why; figures are of the others
	Notes   []string `json:"notes,omitempty"`
}
