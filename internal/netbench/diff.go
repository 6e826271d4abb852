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
	// fail now.
	Regressions int
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

	column  column
	heading string // of the rows of fio's jobs; empty: of the workload
}

// Verdict judges a change.
type Verdict int

// The verdicts.
const (
	Same       Verdict = iota // within the threshold
	Noise                     // beyond it, but the ranges of both runs overlap
	Better                    // beyond it
	Regression                // beyond it, in the wrong direction
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
	default:
		return "unknown"
	}
}

// Diff compares the run b with the older run a, like with like: the same path,
// workload, number of streams and size. A median that got worse by more than
// threshold (a part of one: see [ParseThreshold]) is a regression, unless the
// ranges over the rounds overlap, which is noise. A path that gave figures and
// now fails is a regression too; one that is missing or was not asked for is
// only said. It returns the number of regressions.
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
	switch {
	case absence(after) != "" && (before == nil || absence(before) != ""):
		return // in neither
	case before == nil:
		say("only in the new run")
		return
	case absence(before) != "":
		say("not in the old run (%s)", absence(before))
		return
	case absence(after) != "" && after.Missing == "":
		say("REGRESSION: gave figures in the old run, now %s", absence(after))
		report.Regressions++
		return
	case absence(after) != "":
		say("not in the new run (%s)", absence(after))
		return
	case after.Workload == WorkloadRROpen && a.Config.RatePerS != b.Config.RatePerS:
		say("not compared: %s exchanges/s, then %s", number(a.Config.RatePerS), number(b.Config.RatePerS))
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
		row := DiffRow{
			Workload: g.Workload, Path: after.Path, Streams: g.Streams, Size: g.Size,
			Key: c.key, Old: was, New: is, column: c,
		}
		row.Delta, row.Verdict = judge(c, was, is, report.Threshold)
		if row.Verdict == Regression {
			report.Regressions++
		}
		report.Rows = append(report.Rows, row)
	}
}

// judge compares two figures of a column.
func judge(c column, was, is *Figure, threshold float64) (delta float64, v Verdict) {
	switch {
	case c.quantity == shareQuantity:
		// A share may be 0 or negative, and 0.1 % to 0.2 % is no doubling.
		delta = is.Median - was.Median
	case was.Median == is.Median:
		delta = 0
	case was.Median == 0:
		delta = math.Inf(int(math.Copysign(1, is.Median)))
	default:
		delta = (is.Median - was.Median) / math.Abs(was.Median)
	}
	switch {
	case math.Abs(delta) <= threshold || delta == 0:
		return delta, Same
	case was.Min <= is.Max && is.Min <= was.Max:
		return delta, Noise
	case delta > 0 == (c.better > 0):
		return delta, Better
	default:
		return delta, Regression
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
	if c.Rounds < 3 || d.Rounds < 3 {
		lines = append(lines, fmt.Sprintf("%d and %d rounds are too few to tell noise from change: take 5 or more", c.Rounds, d.Rounds))
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
