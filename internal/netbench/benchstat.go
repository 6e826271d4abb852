package netbench

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// benchstatUnit is a column under the name that benchstat compares it by.
type benchstatUnit struct {
	key    string
	unit   string
	factor float64
}

// benchstatUnits returns what is exported, in the order of the line.
func benchstatUnits() []benchstatUnit {
	return []benchstatUnit{
		{"throughput_bytes_per_s", "MB/s", 1e-6},
		{"exchanges_per_s", "exchanges/s", 1},
		{"connections_per_s", "conns/s", 1},
		{"latency_us.p50", "p50-us", 1},
		{"latency_us.p90", "p90-us", 1},
		{"latency_us.p99", "p99-us", 1},
		{"latency_us.p999", "p99.9-us", 1},
		{"proxy_cpu_s_per_gb", "proxy-cpu-s/GB", 1},
		{"machine_cpu_s_per_gb", "cpu-s/GB", 1},
		{"proxy_cpu_us_per_op", "proxy-cpu-us/exchange", 1},
		{"machine_cpu_us_per_op", "cpu-us/exchange", 1},
		{"rss_bytes_per_pair", "rss-B/pair", 1},
		{"kernel_bytes_per_pair", "kernel-B/pair", 1},
		{"fds_per_pair", "fds/pair", 1},
		{"pipes_per_pair", "pipes/pair", 1},
		{"busy_loss", "busy-loss", 1},
		{"receiver_cpu_s_per_gb", "receiver-cpu-s/GB", 1},
		{"queued_bytes", "queued-B", 1},
	}
}

// WriteBenchstat writes the results as lines of Go's benchmark format, one a
// round, so that `benchstat old new` tells whether a difference is more than
// noise, and `benchstat -col /path` compares paths. cpu-s/GB is of the whole
// machine.
func WriteBenchstat(w io.Writer, f *File) error {
	var b strings.Builder
	for _, line := range [][2]string{
		{"goos", f.Machine.OS},
		{"goarch", f.Machine.Arch},
		{"pkg", "github.com/spliced-io/spliced/internal/netbench"},
		{"cpu", f.Machine.CPUModel},
		{"kernel", f.Machine.Kernel},
		{"topology", f.Config.Topology},
	} {
		if value := printable(line[1]); value != "" {
			fmt.Fprintf(&b, "%s: %s\n", line[0], value)
		}
	}
	units := benchstatUnits()
	for _, u := range units {
		better := "lower"
		if columnOf(u.key).better > 0 {
			better = "higher"
		}
		fmt.Fprintf(&b, "Unit %s better=%s\n", u.unit, better)
	}
	for _, g := range groupsOf(f) {
		for _, r := range g.Rows {
			writeRounds(&b, r, f.Machine.CPUs, units)
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write benchstat lines: %w", err)
	}
	return nil
}

func writeRounds(b *strings.Builder, r *Result, cpus int, units []benchstatUnit) {
	name := fmt.Sprintf("BenchmarkNet/workload=%s/path=%s/streams=%d/size=%d-%d",
		benchstatName(r.Workload), benchstatName(r.Path), r.Streams, r.Size, max(cpus, 1))
	for round := 0; ; round++ {
		var line strings.Builder
		for _, u := range units {
			fig := columnOf(u.key).figure(r)
			if fig == nil || round >= len(fig.Samples) || isMaximum(columnOf(u.key), r) {
				continue
			}
			fmt.Fprintf(&line, "\t%s %s", strconv.FormatFloat(fig.Samples[round]*u.factor, 'g', 6, 64), u.unit)
		}
		if line.Len() == 0 {
			return
		}
		fmt.Fprintf(b, "%s\t1%s\n", name, line.String())
	}
}

// benchstatName keeps a name in one part of a benchmark's name.
func benchstatName(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' || r == '=' {
			return '_'
		}
		return r
	}, printable(s))
}
