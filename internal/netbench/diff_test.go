package netbench

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func TestDiffJudges(t *testing.T) {
	t.Parallel()
	throughput, latency := columnOf("throughput_bytes_per_s"), columnOf("latency_us.p99")
	loss, pipes := columnOf("busy_loss"), columnOf("pipes_per_pair")
	for name, tc := range map[string]struct {
		column   column
		old, new []float64
		delta    float64
		want     Verdict
	}{
		"the same":                      {throughput, []float64{10, 11, 12}, []float64{10, 11, 12}, 0, Same},
		"slower within the threshold":   {throughput, []float64{100}, []float64{96}, -0.04, Same},
		"slower, at the threshold":      {throughput, []float64{100}, []float64{95}, -0.05, Same},
		"slower beyond it":              {throughput, []float64{100, 101, 102}, []float64{80, 81, 82}, -20. / 101, Regression},
		"slower, but the ranges meet":   {throughput, []float64{80, 100, 102}, []float64{70, 81, 82}, -0.19, Noise},
		"slower, the ranges touch":      {throughput, []float64{82, 100, 102}, []float64{70, 81, 82}, -0.19, Noise},
		"faster":                        {throughput, []float64{100, 101, 102}, []float64{120, 121, 122}, 20. / 101, Better},
		"less latency":                  {latency, []float64{100, 101, 102}, []float64{80, 81, 82}, -20. / 101, Better},
		"more latency":                  {latency, []float64{100, 101, 102}, []float64{120, 121, 122}, 20. / 101, Regression},
		"a share grew by a point":       {loss, []float64{0.01}, []float64{0.02}, 0.01, Same},
		"a share grew by ten points":    {loss, []float64{0.01}, []float64{0.11}, 0.1, Regression},
		"a share turned negative":       {loss, []float64{0.08}, []float64{-0.08}, -0.16, Better},
		"from nothing to something":     {pipes, []float64{0, 0, 0}, []float64{2, 2, 2}, math.Inf(1), Regression},
		"from something to nothing":     {pipes, []float64{2, 2, 2}, []float64{0, 0, 0}, -1, Better},
		"nothing stays nothing":         {pipes, []float64{0, 0, 0}, []float64{0, 0, 0}, 0, Same},
		"sometimes something, in noise": {pipes, []float64{0, 0, 3}, []float64{2, 2, 2}, math.Inf(1), Noise},
	} {
		delta, verdict := judge(tc.column, NewFigure(tc.old), NewFigure(tc.new), 0.05)
		if verdict != tc.want {
			t.Errorf("%s: verdict %d (%v), want %d", name, verdict, verdict, tc.want)
		}
		if delta != tc.delta && math.Abs(delta-tc.delta) > 1e-9 {
			t.Errorf("%s: delta %v, want %v", name, delta, tc.delta)
		}
	}
}

func TestDiffComparesLikeWithLike(t *testing.T) {
	t.Parallel()
	a, b := sampleRun(), sampleRun()
	slower(find(t, b, WorkloadBulk, PathSplice, 8), 0.5)

	report, regressions := Diff(a, b, 0.05)
	if regressions != 1 || report.Regressions != 1 {
		t.Fatalf("%d regressions, want 1: %+v", regressions, report)
	}
	for _, row := range report.Rows {
		isIt := row.Workload == WorkloadBulk && row.Path == PathSplice && row.Streams == 8 && row.Key == "throughput_bytes_per_s"
		if isIt != (row.Verdict == Regression) {
			t.Errorf("%+v: verdict %v", row, row.Verdict)
		}
		if row.Path == PathNginx || row.Path == PathSocat {
			t.Errorf("a row for a path without figures: %+v", row)
		}
	}
	var text bytes.Buffer
	if err := report.Write(&text); err != nil {
		t.Fatal(err)
	}
	line := lineWith(t, text.String(), "REGRESSION")
	for _, want := range []string{"splice", "throughput, GB/s", "1.377", "0.688", "-50.0%"} {
		if !strings.Contains(line, want) {
			t.Errorf("the line %q lacks %q", line, want)
		}
	}
	if !strings.Contains(text.String(), "1 regression,") {
		t.Errorf("no count in %q", text.String())
	}
}

func TestDiffSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	a, b := sampleRun(), sampleRun()
	// Gone altogether, as if it had not been asked for.
	b.Results = removed(b.Results, WorkloadConn, PathWire)
	b.Config.Paths = []string{PathDirect}
	// No longer installed.
	gocopy := find(t, b, WorkloadRR, PathGoCopy, 1)
	*gocopy = Result{Path: PathGoCopy, Workload: WorkloadRR, Streams: 1, Size: 64, Missing: "gone"}
	// Fails now, before its size was known.
	copied := find(t, b, WorkloadBulkBoth, PathCopy, 1)
	*copied = Result{Path: PathCopy, Workload: WorkloadBulkBoth, Streams: 1, Error: "hung"}
	// A figure that is no longer there, and a path that is new.
	find(t, b, WorkloadMixed, PathDirect, 1).MachineCPU = nil
	a.Results = removed(a.Results, WorkloadIdle, PathSplice)
	a.Config.Paths = []string{PathDirect}

	report, regressions := Diff(a, b, 0.05)
	if regressions != 1 {
		t.Errorf("%d regressions, want only the path that fails now", regressions)
	}
	all := strings.Join(report.Missing, "\n")
	for _, want := range []string{
		"conn (1 stream, 64 B messages) wire: only in the old run",
		"rr (1 stream, 64 B messages) gocopy: not in the new run (missing: gone)",
		"bulk-both (1 stream, 128 KiB writes) copy: REGRESSION: gave figures in the old run, now failed: hung",
		"mixed (1 stream, 128 KiB writes) direct: machine_cpu_s_per_gb only in the old run",
		"idle (1000 pairs) splice: only in the new run",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("not said: %q in\n%s", want, all)
		}
	}
	if len(report.Missing) != 5 {
		t.Errorf("%d remarks, want 5:\n%s", len(report.Missing), all)
	}
}

func TestDiffOfUnlikeRuns(t *testing.T) {
	t.Parallel()
	a, b := sampleRun(), sampleRun()
	b.Config.Topology = "loopback"
	b.Machine.Kernel = "6.19.0"
	b.Machine.Sysctls = map[string]string{"fs.pipe-max-size": "65536"}
	report, regressions := Diff(a, b, 0.05)
	if len(report.Rows) != 0 || regressions != 0 {
		t.Errorf("compared %d figures of different topologies", len(report.Rows))
	}
	warnings := strings.Join(report.Warnings, "\n")
	for _, want := range []string{"topology", "6.19.0", "fs.pipe-max-size differs: 1048576, then 65536", "tcp_rmem differs: 4096 131072 6291456, then none"} {
		if !strings.Contains(warnings, want) {
			t.Errorf("no warning of %q in\n%s", want, warnings)
		}
	}

	b = sampleRun()
	b.Config.RatePerS = 5000
	report, _ = Diff(a, b, 0.05)
	for _, row := range report.Rows {
		if row.Workload == WorkloadRROpen {
			t.Errorf("compared %+v at different rates", row)
		}
	}
	if !strings.Contains(strings.Join(report.Missing, "\n"), "rr-open (1 stream, 64 B messages) splice: not compared: 2000 exchanges/s, then 5000") {
		t.Errorf("the rates are not mentioned: %q", report.Missing)
	}
}

func find(t *testing.T, f *File, workload, path string, streams int) *Result {
	t.Helper()
	for i := range f.Results {
		if r := &f.Results[i]; r.Workload == workload && r.Path == path && r.Streams == streams {
			return r
		}
	}
	t.Fatalf("no result of %s under %s", path, workload)
	return nil
}

func slower(r *Result, factor float64) {
	samples := r.Throughput.Samples
	for i := range samples {
		samples[i] *= factor
	}
	r.Throughput = NewFigure(samples)
}

func removed(results []Result, workload, path string) []Result {
	var kept []Result
	for _, r := range results {
		if r.Workload != workload || r.Path != path {
			kept = append(kept, r)
		}
	}
	return kept
}

// lineWith returns the one line of text that contains what.
func lineWith(t *testing.T, text, what string) string {
	t.Helper()
	found := ""
	for line := range strings.Lines(text) {
		if strings.Contains(line, what) {
			if found != "" {
				t.Fatalf("more than one line with %q:\n%s%s", what, found, line)
			}
			found = line
		}
	}
	if found == "" {
		t.Fatalf("no line with %q in:\n%s", what, text)
	}
	return found
}
