package netbench

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestDiffJudges(t *testing.T) {
	t.Parallel()
	throughput, latency := columnOf("throughput_bytes_per_s"), columnOf("latency_us.p99")
	loss, pipes := columnOf("busy_loss"), columnOf("pipes_per_pair")
	around := func(v float64, n int) (samples []float64) {
		for i := range n {
			samples = append(samples, v+float64(i-n/2))
		}
		return samples
	}
	with := func(samples []float64, outlier float64) []float64 {
		return append(samples[1:len(samples):len(samples)], outlier)
	}
	for name, tc := range map[string]struct {
		column   column
		old, new []float64
		delta    float64
		want     Verdict
	}{
		"the same":                      {throughput, around(100, 5), around(100, 5), 0, Same},
		"slower within the threshold":   {throughput, []float64{100}, []float64{96}, -0.04, Same},
		"slower, at the threshold":      {throughput, []float64{100}, []float64{95}, -0.05, Same},
		"slower beyond it":              {throughput, around(100, 5), around(80, 5), -0.2, Regression},
		"slower in four rounds":         {throughput, around(100, 4), around(80, 4), -20 / 99.5, Regression},
		"slower in three rounds":        {throughput, around(100, 3), around(80, 3), -0.2, Undecided},
		"slower in three of five":       {throughput, around(100, 3), around(80, 5), -0.2, Regression},
		"slower in one round":           {throughput, []float64{100}, []float64{80}, -0.2, Undecided},
		"slower, three rounds that mix": {throughput, []float64{80, 100, 102}, []float64{70, 81, 82}, -0.19, Noise},
		"slower, five rounds that mix":  {throughput, []float64{80, 82, 100, 101, 102}, []float64{70, 72, 81, 99, 100}, -0.19, Noise},
		// The ranges overlap by one round in the middle of the other's.
		"one round of five reaches in": {throughput, around(100, 5), []float64{79, 80, 81, 82, 99}, -0.19, Regression},
		// It lies beyond all of the others: the order alone can't tell it from chance.
		"one outlier of five, new": {throughput, around(100, 5), with(around(80, 5), 200), -0.19, Undecided},
		"one outlier of five, old": {throughput, with(around(100, 5), 1), around(80, 5), -0.2, Undecided},
		"one outlier of ten, new":  {throughput, around(100, 10), with(around(80, 10), 200), -19. / 99.5, Regression},
		"one outlier of ten, old":  {throughput, with(around(100, 10), 1), around(80, 10), -20.5 / 100, Regression},
		"better, but for one":      {throughput, around(80, 5), with(around(100, 5), 1), 0.25, Undecided},
		"faster":                   {throughput, around(100, 5), around(120, 5), 0.2, Better},
		"less latency":             {latency, around(100, 5), around(80, 5), -0.2, Better},
		"more latency":             {latency, around(100, 5), around(120, 5), 0.2, Regression},
		"a share grew by a point":  {loss, []float64{0.01}, []float64{0.02}, 0.01, Same},
		"a share grew by ten points": {
			loss,
			[]float64{0.01, 0.01, 0.01, 0.01},
			[]float64{0.11, 0.11, 0.11, 0.11},
			0.1, Regression,
		},
		"a share turned negative": {
			loss,
			[]float64{0.08, 0.08, 0.08, 0.08},
			[]float64{-0.08, -0.08, -0.08, -0.08},
			-0.16, Better,
		},
		"from nothing to something":     {pipes, []float64{0, 0, 0, 0}, []float64{2, 2, 2, 2}, math.Inf(1), Regression},
		"from something to nothing":     {pipes, []float64{2, 2, 2, 2}, []float64{0, 0, 0, 0}, -1, Better},
		"nothing stays nothing":         {pipes, []float64{0, 0, 0}, []float64{0, 0, 0}, 0, Same},
		"sometimes something, in noise": {pipes, []float64{0, 0, 3}, []float64{2, 2, 2}, math.Inf(1), Noise},
	} {
		row := DiffRow{column: tc.column, Old: NewFigure(tc.old), New: NewFigure(tc.new)}
		row.judge(0.05)
		if row.Verdict != tc.want {
			t.Errorf("%s: verdict %v (p=%v), want %v", name, row.Verdict, row.P, tc.want)
		}
		if row.Delta != tc.delta && math.Abs(row.Delta-tc.delta) > 1e-2 {
			t.Errorf("%s: delta %v, want %v", name, row.Delta, tc.delta)
		}
	}
}

// Files that others wrote may have ranges without the rounds behind them.
func TestDiffJudgesRanges(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		old, new Figure
		want     Verdict
	}{
		"overlap": {Figure{Median: 100, Min: 80, Max: 110}, Figure{Median: 80, Min: 70, Max: 80}, Noise},
		"apart":   {Figure{Median: 100, Min: 90, Max: 110}, Figure{Median: 80, Min: 70, Max: 85}, Undecided},
	} {
		row := DiffRow{column: columnOf("throughput_bytes_per_s"), Old: &tc.old, New: &tc.new}
		row.judge(0.05)
		if row.Verdict != tc.want || !math.IsNaN(row.P) {
			t.Errorf("%s: verdict %v, p=%v, want %v", name, row.Verdict, row.P, tc.want)
		}
	}
}

// The p-values are those of R's wilcox.test and of tables of U.
func TestRankTest(t *testing.T) {
	t.Parallel()
	sequence := func(from, n int) (values []float64) {
		for i := range n {
			values = append(values, float64(from+i))
		}
		return values
	}
	for name, tc := range map[string]struct {
		a, b []float64
		p    float64
	}{
		"nothing":                 {nil, []float64{1}, 1},
		"one each":                {[]float64{1}, []float64{2}, 1},
		"three each, apart":       {sequence(1, 3), sequence(4, 3), 2. / 20},
		"four each, apart":        {sequence(1, 4), sequence(5, 4), 2. / 70},
		"five each, apart":        {sequence(6, 5), sequence(1, 5), 2. / 252},
		"five each, U=2":          {[]float64{1, 2, 3, 5, 6}, []float64{4, 7, 8, 9, 10}, 8. / 252},
		"five each, U=5":          {[]float64{1, 2, 3, 4, 100}, sequence(5, 5), 38. / 252},
		"three and five":          {sequence(1, 3), sequence(4, 5), 2. / 56},
		"all alike":               {[]float64{1, 1, 1}, []float64{1, 1, 1}, 1},
		"ties, four each":         {[]float64{1, 1, 1, 1}, []float64{2, 2, 2, 2}, 2. / 70},
		"ties across, three each": {[]float64{1, 2, 2}, []float64{2, 3, 3}, 0.3},
		// Beyond the exact ones: mu = 450, sigma^2 = 4575.
		"thirty each, apart": {sequence(1, 30), sequence(31, 30), math.Erfc(449.5 / math.Sqrt(4575) / math.Sqrt2)},
	} {
		if got := rankTest(tc.a, tc.b); math.Abs(got-tc.p) > 1e-9 {
			t.Errorf("%s: p is %v, want %v", name, got, tc.p)
		}
		if got := rankTest(tc.b, tc.a); math.Abs(got-tc.p) > 1e-9 {
			t.Errorf("%s, exchanged: p is %v, want %v", name, got, tc.p)
		}
	}
	for _, tc := range []struct {
		n, m int
		p    float64
	}{{0, 5, 1}, {1, 1, 1}, {3, 3, 0.1}, {4, 4, 2. / 70}, {3, 5, 2. / 56}} {
		if got := leastP(tc.n, tc.m); math.Abs(got-tc.p) > 1e-12 {
			t.Errorf("leastP(%d, %d) is %v, want %v", tc.n, tc.m, got, tc.p)
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
	a, b := withoutFailures(sampleRun()), withoutFailures(sampleRun())
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
		"bulk-both (1 stream, 128 KiB writes) copy: REGRESSION: fails: hung, and did not in the old run",
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

// A path that failed in a round is none to pass, whatever the others say.
func TestDiffOfFailures(t *testing.T) {
	t.Parallel()
	const failed = "round 3: hung"
	for _, test := range []struct {
		name                   string
		change                 func(old, new *Result)
		regressions, undecided int
		want                   string
	}{
		{"in one round now", func(_, new *Result) { new.Error = failed; new.Rounds = 1 }, 1, 0, "REGRESSION: fails in some rounds: round 3: hung, and did not in the old run"},
		{"in all rounds now", func(_, new *Result) { fail(new) }, 1, 0, "REGRESSION: fails: round 3: hung, and did not in the old run"},
		{"in one round before, in all now", func(old, new *Result) { old.Error = failed; fail(new) }, 1, 0, "REGRESSION: fails: round 3: hung, and did in some rounds only in the old run"},
		{"in both", func(old, new *Result) { old.Error, new.Error = failed, failed }, 0, 1, "UNDECIDED: fails in some rounds: round 3: hung, as in the old run (round 3: hung)"},
		{"in all rounds of both", func(old, new *Result) { fail(old); fail(new) }, 0, 1, "UNDECIDED: fails: round 3: hung, as in the old run (round 3: hung)"},
		{"was missing", func(old, new *Result) { fail(old); old.Error, old.Missing = "", "none"; fail(new) }, 0, 1, "UNDECIDED: fails: round 3: hung, and was not in the old run"},
		{"before only", func(old, _ *Result) { old.Error = failed }, 0, 0, ""},
	} {
		a, b := withoutFailures(sampleRun()), withoutFailures(sampleRun())
		test.change(find(t, a, WorkloadConn, PathGoCopy, 1), find(t, b, WorkloadConn, PathGoCopy, 1))
		report, regressions := Diff(a, b, 0.05)
		all := strings.Join(report.Missing, "\n")
		if regressions != test.regressions || report.Undecided != test.undecided || !strings.Contains(all, test.want) {
			t.Errorf("%s: %d regressions, %d undecided, want %d and %d; said %q, want %q",
				test.name, regressions, report.Undecided, test.regressions, test.undecided, all, test.want)
		}
	}
}

func fail(r *Result) {
	*r = Result{Path: r.Path, Workload: r.Workload, Streams: r.Streams, Size: r.Size, Error: "round 3: hung"}
}

func withoutFailures(f *File) *File {
	f.Results = slices.DeleteFunc(f.Results, func(r Result) bool { return r.Error != "" })
	return f
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
