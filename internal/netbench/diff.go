package netbench

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Report is what [Diff] found.
type Report struct {
	Threshold float64
	Rows      []DiffRow
	// Missing names what only one of the files has figures for.
	Missing []string
	// Warnings say what makes the two runs unlike each other.
	Warnings []string
	// Regressions counts the rows that are regressions, and the paths that
	// fail now, in all rounds or in some.
	Regressions int
	// Undecided counts the rows that may be regressions, and the paths that
	// fail without a run beside it in which they did not.
	Undecided int
}

// DiffRow is one figure of one path under one workload, in both files.
type DiffRow struct {
	Workload string
	Path     string
	Streams  int
	Size     int
	Key      string // the JSON key of the figure
	Old, New *Figure
	// Delta is the change of the median as a part of the old one; of shares,
	// the difference itself. It is infinite if the old one was 0.
	Delta   float64
	Verdict Verdict
	// P is what the rounds' order says: how likely chance alone would set them
	// so far apart. It is NaN where no rounds are known, and for changes within
	// the threshold.
	P float64

	column  column
	heading string // of the rows of fio's jobs; empty: of the workload
}

// Verdict judges a change.
type Verdict int

// The verdicts.
const (
	Same       Verdict = iota // within the threshold
	Noise                     // beyond it, but chance may be all that is behind it
	Better                    // beyond it
	Regression                // beyond it, in the wrong direction
	Undecided                 // beyond it, by rounds that are too few to rule chance out
)

// String returns the verdict as the report prints it.
func (v Verdict) String() string {
	switch v {
	case Same:
		return ""
	case Noise:
		return "within the spread"
	case Better:
		return "better"
	case Regression:
		return "REGRESSION"
	case Undecided:
		return "UNDECIDED"
	default:
		return "unknown"
	}
}

// Diff compares the run b with the older run a, like with like: the same path,
// workload, number of streams and size. A median that got worse by more than
// threshold (a part of one: see [ParseThreshold]) is a regression if the order
// of the rounds is one that chance gives once in twenty times or less: see
// [rankTest]. If there are too few rounds for that (less than four each,
// mostly), or but one round hides it, it is undecided. A path that gave figures
// and now fails, be it in one round, is a regression too; one that is missing or
// was not asked for is only said. It returns the number of regressions; see
// [Report.Undecided] for what is neither that nor none.
//
// Runs of different topologies or, for rr-open, different rates have nothing
// alike: no row of them is compared. Check [Report.Rows] for being empty.
func Diff(a, b *File, threshold float64) (Report, int) {
	report := Report{Threshold: threshold, Warnings: unlike(a, b)}
	if a.Config.Topology != b.Config.Topology {
		report.Missing = append(report.Missing,
			fmt.Sprintf("nothing compared: topology %s, then %s", printable(a.Config.Topology), printable(b.Config.Topology)))
		return report, 0
	}
	olds, news := indexGroups(a), indexGroups(b)
	for _, g := range groupsOf(b) {
		for _, after := range g.Rows {
			report.compare(&g, olds[g.key(after)], after, a, b)
		}
	}
	for _, g := range groupsOf(a) {
		for _, before := range g.Rows {
			if news[g.key(before)] == nil && absence(before) == "" {
				report.Missing = append(report.Missing, g.nameOf(before)+": only in the old run")
			}
		}
	}
	return report, report.Regressions
}

// resultKey is what makes two results alike.
type resultKey struct {
	workload, path string
	streams, size  int
}

// key is the group's rather than the row's: a path that never ran may not know
// its size.
func (g *reportGroup) key(r *Result) resultKey {
	return resultKey{g.Workload, r.Path, g.Streams, g.Size}
}

func indexGroups(f *File) map[resultKey]*Result {
	index := map[resultKey]*Result{}
	for _, g := range groupsOf(f) {
		for _, r := range g.Rows {
			index[g.key(r)] = r
		}
	}
	return index
}

// compare adds the rows of one result.
func (report *Report) compare(g *reportGroup, before, after *Result, a, b *File) {
	name := g.nameOf(after)
	say := func(format string, args ...any) {
		report.Missing = append(report.Missing, name+": "+fmt.Sprintf(format, args...))
	}
	report.compareFailures(before, after, say)
	switch {
	case absence(after) != "" && (before == nil || absence(before) != ""):
		return // in neither
	case before == nil:
		say("only in the new run")
		return
	case absence(before) != "":
		say("not in the old run (%s)", absence(before))
		return
	case absence(after) != "" && after.Missing == "" && after.Error == "":
		say("REGRESSION: gave figures in the old run, now %s", absence(after))
		report.Regressions++
		return
	case absence(after) != "":
		if after.Error == "" {
			say("not in the new run (%s)", absence(after))
		}
		return
	case after.Workload == WorkloadRROpen && a.Config.RatePerS != b.Config.RatePerS:
		say("not compared: %s exchanges/s, then %s", number(a.Config.RatePerS), number(b.Config.RatePerS))
		return
	}
	if why := unlikeSockmaps(after.Workload, &a.Config, &b.Config); why != "" {
		say("not compared: %s", why)
		return
	}
	for _, c := range columnsOf(after.Workload) {
		if c.better == 0 {
			continue
		}
		was, is := c.figure(before), c.figure(after)
		switch {
		case was == nil && is == nil:
			continue
		case was == nil:
			say("%s only in the new run", c.key)
			continue
		case is == nil:
			say("%s only in the old run", c.key)
			continue
		}
		if isMaximum(c, before) || isMaximum(c, after) {
			say("%s not compared: a round has too few exchanges for it", c.key)
			continue
		}
		row := DiffRow{
			Workload: g.Workload, Path: after.Path, Streams: g.Streams, Size: g.Size,
			Key: c.key, Old: was, New: is, column: c,
		}
		row.judge(report.Threshold)
		report.add(row)
	}
}

// isMaximum tells whether the column is a percentile that is none.
func isMaximum(c column, r *Result) bool {
	name, ok := strings.CutPrefix(c.key, "latency_us.")
	return ok && slices.Contains(r.Latency.Maxima, name)
}

// compareFailures is about paths that failed in the new run, in all rounds or
// in some: figures of the rounds in between speak for no such path.
func (report *Report) compareFailures(before, after *Result, say func(string, ...any)) {
	now := failure(after)
	switch {
	case now == "":
	case before == nil || before.Missing != "":
		say("UNDECIDED: %s, and was not in the old run", now)
		report.Undecided++
	case before.Error == "":
		say("REGRESSION: %s, and did not in the old run", now)
		report.Regressions++
	case hasFigures(before) && !hasFigures(after):
		say("REGRESSION: %s, and did in some rounds only in the old run", now)
		report.Regressions++
	default:
		say("UNDECIDED: %s, as in the old run (%s)", now, printable(before.Error))
		report.Undecided++
	}
}

// failure says in which rounds a path failed and why, "" if in none.
func failure(r *Result) string {
	switch {
	case r.Error == "":
		return ""
	case hasFigures(r):
		return "fails in some rounds: " + printable(r.Error)
	default:
		return "fails: " + printable(r.Error)
	}
}

// add counts the row.
func (report *Report) add(row DiffRow) {
	switch {
	case row.Verdict == Regression:
		report.Regressions++
	case row.Verdict == Undecided && !row.improved():
		report.Undecided++
	}
	report.Rows = append(report.Rows, row)
}

// improved tells whether the median moved in the direction that is better.
func (row *DiffRow) improved() bool { return row.Delta > 0 == (row.column.better > 0) }

// judge compares figures of several rounds.
func (row *DiffRow) judge(threshold float64) {
	row.Delta, row.P = change(row.column, row.Old, row.New), math.NaN()
	if math.Abs(row.Delta) <= threshold || row.Delta == 0 {
		row.Verdict = Same
		return
	}
	was, is := row.Old.Samples, row.New.Samples
	if len(was) == 0 || len(is) == 0 {
		// Somebody else's file: there are ranges, and no rounds behind them.
		row.Verdict = Noise
		if !overlap(row.Old, row.New) {
			row.Verdict = Undecided
		}
		return
	}
	row.P = rankTest(was, is)
	tooFew := leastP(len(was), len(is)) > significance
	switch {
	case row.P <= significance && row.improved():
		row.Verdict = Better
	case row.P <= significance:
		row.Verdict = Regression
	case tooFew && apart(was, is), !tooFew && apartButOne(was, is):
		row.Verdict = Undecided
	default:
		row.Verdict = Noise
	}
}

// judgeOnce compares figures of one measurement each, whose ranges are those
// within it.
func (row *DiffRow) judgeOnce(threshold float64) {
	row.Delta, row.P = change(row.column, row.Old, row.New), math.NaN()
	switch {
	case math.Abs(row.Delta) <= threshold || row.Delta == 0:
		row.Verdict = Same
	case overlap(row.Old, row.New):
		row.Verdict = Noise
	case row.improved():
		row.Verdict = Better
	default:
		row.Verdict = Regression
	}
}

func overlap(a, b *Figure) bool { return a.Min <= b.Max && b.Min <= a.Max }

// change is how the median of a column's figure moved: see [DiffRow.Delta].
func change(c column, was, is *Figure) float64 {
	switch {
	case c.quantity == shareQuantity:
		// A share may be 0 or negative, and 0.1 % to 0.2 % is no doubling.
		return is.Median - was.Median
	case was.Median == is.Median:
		return 0
	case was.Median == 0:
		return math.Inf(int(math.Copysign(1, is.Median)))
	default:
		return (is.Median - was.Median) / math.Abs(was.Median)
	}
}

func (g *reportGroup) nameOf(r *Result) string {
	return fmt.Sprintf("%s (%s) %s", printable(g.Workload), g.Detail(), printable(r.Path))
}

// unlike names what differs between the machines and set-ups of two runs and
// may explain a difference of their figures.
func unlike(a, b *File) []string {
	var lines []string
	differ := func(what, was, is string) {
		if was != is {
			lines = append(lines, fmt.Sprintf("%s differs: %s, then %s", what, printable(orNone(was)), printable(orNone(is))))
		}
	}
	m, n := &a.Machine, &b.Machine
	differ("host", m.Hostname, n.Hostname)
	differ("kernel", m.OS+" "+m.Kernel+" "+m.Arch, n.OS+" "+n.Kernel+" "+n.Arch)
	differ("processor", counted(m.CPUs, "CPU")+" "+m.CPUModel, counted(n.CPUs, "CPU")+" "+n.CPUModel)
	differ("memory", number(float64(m.MemoryBytes)), number(float64(n.MemoryBytes)))
	differ("idle driver", m.IdleDriver, n.IdleDriver)
	differ("congestion control", m.CongestionControl, n.CongestionControl)
	differ("Go", m.Go, n.Go)
	differMaps(&lines, "sysctl", m.Sysctls, n.Sysctls)
	differMaps(&lines, "mitigation", m.Mitigations, n.Mitigations)
	c, d := &a.Config, &b.Config
	differ("topology", c.Topology, d.Topology)
	differ("duration of a round", number(c.DurationS)+" s", number(d.DurationS)+" s")
	if leastP(c.Rounds, d.Rounds) > significance {
		lines = append(lines, fmt.Sprintf("%d and %d rounds are too few to tell any change from noise: take 5 or more", c.Rounds, d.Rounds))
	}
	versions := map[string]string{}
	for _, p := range a.Peers {
		versions[p.Path] = p.Version
	}
	for _, p := range b.Peers {
		if was, ok := versions[p.Path]; ok {
			differ("version of "+printable(p.Path), was, p.Version)
		}
	}
	return lines
}

func differMaps(lines *[]string, what string, a, b map[string]string) {
	names := slices.Sorted(maps.Keys(a))
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if a[name] != b[name] {
			*lines = append(*lines, fmt.Sprintf("%s %s differs: %s, then %s",
				what, printable(name), printable(orNone(a[name])), printable(orNone(b[name]))))
		}
	}
}

func orNone(s string) string {
	if strings.TrimSpace(s) == "" {
		return "none"
	}
	return s
}
