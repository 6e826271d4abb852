package netbench

import (
	"math"
	"time"
)

// sampleRun is a run in which everything that a report has to show occurs: a
// peer that is missing, one that failed in all rounds and one that failed in
// some, an unknown path, one of its names being hostile, and all workloads. Its
// figures are made up and obey no proxy.
func sampleRun() *File {
	paths := []string{
		PathDirect, PathCopy, PathSplice, PathWire, PathGoCopy, PathHAProxy, PathHAProxySplice, PathNginx, PathSocat,
		`my<"proxy">&`,
	}
	f := &File{
		Schema:  SchemaVersion,
		Tool:    "spliced v0.0.0-test",
		Started: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		Seconds: 321.5,
		Machine: Machine{
			Hostname: "testhost", OS: "linux", Arch: "amd64", Kernel: "6.18.0", CPUModel: "Some CPU @ 2.0GHz", CPUs: 2,
			MemoryBytes: 8 << 30, Virtual: true, CongestionControl: "cubic", Go: "go1.26",
			Sysctls:     map[string]string{"net.ipv4.tcp_rmem": "4096\t131072\t6291456", "fs.pipe-max-size": "1048576"},
			Mitigations: map[string]string{"spectre_v2": "Mitigation: IBRS"},
		},
		Config: Config{
			Topology: "netns", Paths: paths, Workloads: Workloads(), Rounds: 5, DurationS: 2, WarmupS: 0.5,
			Streams: []int{1, 8}, Pairs: 1000, RatePerS: 2000,
		},
		Notes: []string{"the hypervisor stole 3 % of the processor time"},
	}
	for _, p := range paths {
		peer := Peer{Path: p, Name: p, Version: "1.2"}
		switch p {
		case PathHAProxy:
			peer.Command = []string{"haproxy", "-db", "-f", "a file.cfg"}
			peer.Configuration = "global\n  maxconn 20000\n```\n<defaults> & more\n"
		case PathNginx:
			peer.Missing = "nginx: not found in $PATH"
		}
		f.Peers = append(f.Peers, peer)
	}
	for _, workload := range Workloads() {
		streams := []int{1}
		switch workload {
		case WorkloadBulk:
			streams = []int{1, 8}
		case WorkloadIdle:
			streams = []int{1000}
		}
		for _, n := range streams {
			for i, p := range paths {
				f.Results = append(f.Results, sampleResult(workload, p, n, i))
			}
		}
	}
	return f
}

func sampleResult(workload, path string, streams, i int) Result {
	r := Result{Path: path, Workload: workload, Streams: streams, Rounds: 5}
	switch path {
	case PathNginx:
		r.Rounds, r.Missing = 0, "nginx: not found in $PATH"
		return r
	case PathSocat:
		r.Rounds, r.Error = 0, "round 1: byte 4096 differs: got 0x00, want 0x17"
		return r
	case PathHAProxy:
		r.Rounds, r.Error = 3, "rounds 2 and 4: read: connection reset by peer"
	}
	around := func(v float64) *Figure {
		samples := make([]float64, r.Rounds)
		for n := range samples {
			samples[n] = v * (1 + 0.04*math.Sin(float64(3*i+n)*1.7))
		}
		return NewFigure(samples)
	}
	slower := 1 + 0.35*float64(i)
	if path != PathDirect {
		r.RatioToDirect = around(1 / slower)
		if IsOwn(path) {
			r.RatioToBestPeer, r.BestPeer = around(1.9/slower), PathHAProxySplice
		}
	}
	perGB := func() {
		r.Throughput = around(2.4e9 / slower)
		r.MachineCPU, r.SoftirqCPU = around(0.55*slower), around(0.2*slower)
		r.ContextSwitches = around(12000 * slower)
		if path != PathDirect {
			r.ProxyCPU, r.Syscalls = around(0.3*slower), around(40000*slower)
		}
	}
	perOp := func(p50 float64) {
		r.Exchanges = around(1e6 / p50)
		r.Latency = sampleLatency(p50, around, i)
		r.MachineCPUPerOp = around(20 * slower)
		if path != PathDirect {
			r.ProxyCPUPerOp = around(9 * slower)
		}
	}
	switch workload {
	case WorkloadBulk, WorkloadBulkBoth:
		r.Size = 128 << 10
		perGB()
	case WorkloadMixed:
		r.Size = 128 << 10
		perGB()
		r.BusyAlone, r.BusyLoss = around(2.5e9/slower), around(0.04)
	case WorkloadRR:
		r.Size = 64
		perOp(70 * slower)
	case WorkloadRROpen:
		r.Size = 64
		perOp(90 * slower)
		r.Latency.Open = true
		r.ScheduleLagUs = around(12)
	case WorkloadConn:
		r.Size = 64
		perOp(250 * slower)
		r.Exchanges, r.Connections = nil, around(4000/slower)
	case WorkloadIdle:
		r.KernelPerPair = around(9000 + 4000*float64(i))
		r.IdleCPUShare, r.FDsPerPair, r.PipesPerPair = around(0.001), around(2), around(float64(i%3))
		if path != PathDirect {
			r.RSSPerPair = around(3000 * slower)
		}
	}
	return r
}

func sampleLatency(p50 float64, around func(float64) *Figure, i int) *Latency {
	l := &Latency{
		P50: *around(p50), P90: *around(p50 * 1.2), P99: *around(p50 * 2), P999: *around(p50 * 7),
		Mode: []string{ModeSleeping, ModeAwake, ModeMixed}[i%3], WakeupInterrupts: around(0.9),
	}
	for n := range 60 {
		nines := float64(n) * 4.6 / 60
		percentile := 100 * (1 - math.Pow(10, -nines))
		l.Curve = append(l.Curve, CurvePoint{percentile, p50 * (0.8 + 0.2*nines + 0.05*math.Pow(nines, 3.2))})
	}
	l.Curve = append(l.Curve, CurvePoint{100, p50 * 12})
	return l
}
