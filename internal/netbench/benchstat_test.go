package netbench

import (
	"bytes"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// benchmarkLine is the grammar of Go's benchmark format: a name, a count, and
// pairs of value and unit.
var benchmarkLine = regexp.MustCompile(`^Benchmark[^\s]+-\d+\t\d+(\t[0-9.e+-]+ [^\s]+)+$`)

func TestBenchstatLines(t *testing.T) {
	t.Parallel()
	f := sampleRun()
	var b bytes.Buffer
	if err := WriteBenchstat(&b, f); err != nil {
		t.Fatal(err)
	}
	samples := map[string]map[string][]float64{} // name, unit
	better := map[string]string{}
	for line := range strings.Lines(b.String()) {
		line = strings.TrimSuffix(line, "\n")
		fields := strings.Fields(line)
		switch {
		case fields[0] == "Unit":
			better[fields[1]] = fields[2]
		case strings.HasPrefix(line, "Benchmark"):
			if !benchmarkLine.MatchString(line) {
				t.Fatalf("not a benchmark line: %q", line)
			}
			byUnit := samples[fields[0]]
			if byUnit == nil {
				byUnit = map[string][]float64{}
				samples[fields[0]] = byUnit
			}
			for i := 2; i < len(fields); i += 2 {
				v, err := strconv.ParseFloat(fields[i], 64)
				if err != nil {
					t.Fatal(err)
				}
				byUnit[fields[i+1]] = append(byUnit[fields[i+1]], v)
			}
		case !regexp.MustCompile(`^[a-z]+: .`).MatchString(line):
			t.Errorf("neither configuration nor result: %q", line)
		}
	}
	bulk := samples["BenchmarkNet/workload=bulk/path=splice/streams=8/size=131072-2"]
	r := find(t, f, WorkloadBulk, PathSplice, 8)
	sameSamples(t, "MB/s", bulk["MB/s"], r.Throughput.Samples, 1e-6)
	sameSamples(t, "cpu-s/GB", bulk["cpu-s/GB"], r.MachineCPU.Samples, 1)
	sameSamples(t, "proxy-cpu-s/GB", bulk["proxy-cpu-s/GB"], r.ProxyCPU.Samples, 1)
	rr := samples["BenchmarkNet/workload=rr/path=wire/streams=1/size=64-2"]
	sameSamples(t, "p99-us", rr["p99-us"], find(t, f, WorkloadRR, PathWire, 1).Latency.P99.Samples, 1)
	if got := len(samples["BenchmarkNet/workload=bulk/path=haproxy/streams=1/size=131072-2"]["MB/s"]); got != 3 {
		t.Errorf("%d lines for a path that lost two of five rounds", got)
	}
	if better["MB/s"] != "better=higher" || better["p99-us"] != "better=lower" || better["cpu-s/GB"] != "better=lower" {
		t.Errorf("units: %v", better)
	}
	for name, byUnit := range samples {
		if strings.Contains(name, PathNginx) || strings.Contains(name, PathSocat) {
			t.Errorf("%s: lines of a path that gave nothing", name)
		}
		for unit := range byUnit {
			if better[unit] == "" {
				t.Errorf("%s: unit %s does not say which way is better", name, unit)
			}
		}
	}
}

func TestBenchstatNamesStayInOnePart(t *testing.T) {
	t.Parallel()
	if got := benchstatName("my proxy/2=x\t"); strings.ContainsAny(got, " /=\t") || got == "" {
		t.Errorf("%q splits a benchmark's name", got)
	}
}

func sameSamples(t *testing.T, unit string, got, want []float64, factor float64) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(g, w float64) bool { return math.Abs(g-w*factor) <= 1e-5*math.Abs(g) }) {
		t.Errorf("%s: %v, want %v times %v", unit, got, factor, want)
	}
}
