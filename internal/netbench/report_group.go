package netbench

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// reportGroup holds what may be compared with each other: the results of all
// paths under one workload with one number of streams and one size.
type reportGroup struct {
	Workload string
	Streams  int
	Size     int
	Rows     []*Result // in the order in which the run was asked for
	slug     string    // names files and anchors, differs from all others of the run
	asked    int       // rounds
}

// groupsOf sorts the results of a run into groups, in the order of [Workloads],
// then by streams and size. Paths that a group lacks although they were asked
// for get a row that says so.
func groupsOf(f *File) []reportGroup {
	type key struct {
		workload      string
		streams, size int
	}
	byKey := map[key]int{}
	var groups []reportGroup
	for i := range f.Results {
		r := &f.Results[i]
		k := key{r.Workload, r.Streams, r.Size}
		at, ok := byKey[k]
		if !ok {
			at = len(groups)
			byKey[k] = at
			groups = append(groups, reportGroup{Workload: r.Workload, Streams: r.Streams, Size: r.Size})
		}
		groups[at].Rows = append(groups[at].Rows, r)
	}
	groups = foldEmpty(groups)
	order := orderOf(append(Workloads(), f.Config.Workloads...))
	slices.SortStableFunc(groups, func(a, b reportGroup) int {
		return cmp.Or(order(a.Workload)-order(b.Workload), cmp.Compare(a.Streams, b.Streams), cmp.Compare(a.Size, b.Size))
	})
	byPath := orderOf(f.Config.Paths)
	slugs := map[string]bool{}
	for i := range groups {
		g := &groups[i]
		g.asked = f.Config.Rounds
		for _, path := range f.Config.Paths {
			if !slices.ContainsFunc(g.Rows, func(r *Result) bool { return r.Path == path }) {
				g.Rows = append(g.Rows, &Result{
					Path: path, Workload: g.Workload, Streams: g.Streams, Size: g.Size,
					Missing: missingPeer(f, path),
				})
			}
		}
		slices.SortStableFunc(g.Rows, func(a, b *Result) int { return byPath(a.Path) - byPath(b.Path) })
		g.slug = slugOf(fmt.Sprintf("%s-%dx%d", g.Workload, g.Streams, g.Size))
		for n := 2; slugs[g.slug]; n++ {
			g.slug = slugOf(fmt.Sprintf("%s-%dx%d-%d", g.Workload, g.Streams, g.Size, n))
		}
		slugs[g.slug] = true
	}
	return groups
}

// foldEmpty moves rows of groups that have no figures at all into the groups of
// the same workload that have some: a path that never ran may not know its
// size.
func foldEmpty(groups []reportGroup) []reportGroup {
	var kept, empty []reportGroup
	for _, g := range groups {
		if slices.ContainsFunc(g.Rows, hasFigures) {
			kept = append(kept, g)
		} else {
			empty = append(empty, g)
		}
	}
	for _, e := range empty {
		found := false
		for i := range kept {
			g := &kept[i]
			if g.Workload != e.Workload || e.Streams != 0 && g.Streams != e.Streams || e.Size != 0 && g.Size != e.Size {
				continue
			}
			found = true
			for _, r := range e.Rows {
				if !slices.ContainsFunc(g.Rows, func(o *Result) bool { return o.Path == r.Path }) {
					g.Rows = append(g.Rows, r)
				}
			}
		}
		if !found {
			kept = append(kept, e)
		}
	}
	return kept
}

// Title names the workload for people.
func (g *reportGroup) Title() string {
	switch g.Workload {
	case WorkloadBulk:
		return "Bulk, one way"
	case WorkloadBulkBoth:
		return "Bulk, both ways"
	case WorkloadRR:
		return "Request and response, closed loop"
	case WorkloadRROpen:
		return "Request and response, fixed rate"
	case WorkloadConn:
		return "Connect, one exchange, close"
	case WorkloadIdle:
		return "Idle pairs"
	case WorkloadMixed:
		return "Busy streams beside stalled readers"
	case WorkloadSockmapRead:
		return "From socket to socket, consumed by read"
	case WorkloadSockmapSplice:
		return "From socket to socket, consumed by splice"
	default:
		return printable(g.Workload)
	}
}

// Detail gives the parameters of the group.
func (g *reportGroup) Detail() string {
	if g.Workload == WorkloadIdle {
		return counted(g.Streams, "pair")
	}
	parts := []string{counted(g.Streams, "stream")}
	if g.Size > 0 {
		parts = append(parts, sizeText(g.Size)+" "+g.sizeNoun())
	}
	return strings.Join(parts, ", ")
}

func (g *reportGroup) sizeNoun() string {
	switch g.Workload {
	case WorkloadBulk, WorkloadBulkBoth, WorkloadMixed, WorkloadSockmapRead, WorkloadSockmapSplice:
		return "writes"
	default:
		return "messages"
	}
}

// Rounds returns how many rounds the group's figures are of.
func (g *reportGroup) Rounds() int {
	most := 0
	for _, r := range g.Rows {
		most = max(most, r.Rounds)
	}
	return most
}

// bestPeers returns the peers that ratios were taken against.
func (g *reportGroup) bestPeers() []string {
	var names []string
	for _, r := range g.Rows {
		if name := printable(r.BestPeer); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// remarks returns one line for each thing that a reader of the group's figures
// has to know. Rows without figures are left to the caller.
func (g *reportGroup) remarks() []string {
	var lines []string
	if peers := g.bestPeers(); len(peers) > 0 {
		lines = append(lines, "best peer: "+strings.Join(peers, ", "))
	}
	for _, r := range g.Rows {
		if absence(r) == "" && r.Error != "" {
			lines = append(lines, printable(r.Path)+" FAILED: "+printable(r.Error)+" (the figures are of the other rounds)")
		}
	}
	for _, p := range percentiles() {
		var few []string
		for _, r := range g.Rows {
			if r.Latency != nil && slices.Contains(r.Latency.Maxima, p.name) {
				few = append(few, printable(r.Path))
			}
		}
		if len(few) > 0 {
			lines = append(lines, fmt.Sprintf("p%v is the slowest exchange of a round that had less than %.0f: %s",
				p.percentile, 100/(100-p.percentile), strings.Join(few, ", ")))
		}
	}
	for _, mode := range []string{ModeMixed, ModeSleeping, ModeAwake} {
		var in []string
		for _, r := range g.Rows {
			if r.Latency != nil && r.Latency.Mode == mode {
				in = append(in, printable(r.Path))
			}
		}
		if len(in) > 0 {
			lines = append(lines, "latency mode, "+mode+": "+strings.Join(in, ", "))
		}
	}
	for _, r := range g.Rows {
		for _, note := range r.Notes {
			lines = append(lines, printable(r.Path)+": "+printable(note))
		}
	}
	return lines
}

// rowName is the path, with what its figures are of if that is not all rounds.
func (g *reportGroup) rowName(r *Result) string {
	if !g.partial(r) {
		return r.Path
	}
	return fmt.Sprintf("%s (%d of %d)", r.Path, r.Rounds, g.asked)
}

// partial tells whether some rounds of r failed and others gave figures.
func (g *reportGroup) partial(r *Result) bool {
	return r.Error != "" && absence(r) == "" && r.Rounds < g.asked
}

// absence tells why r has no figures, "" if it has some.
func absence(r *Result) string {
	switch {
	case r.Missing != "":
		return "missing: " + printable(r.Missing)
	case hasFigures(r):
		return ""
	case r.Error != "":
		return "failed: " + printable(r.Error)
	default:
		return "no figures"
	}
}

func hasFigures(r *Result) bool {
	return slices.ContainsFunc(columnsOf(r.Workload), func(c column) bool { return c.figure(r) != nil })
}

func missingPeer(f *File, path string) string {
	for _, p := range f.Peers {
		if p.Path == path && p.Missing != "" {
			return p.Missing
		}
	}
	return "not in the results"
}

// orderOf returns the place of a name in names, the first one counting; names
// that are not there come last.
func orderOf(names []string) func(string) int {
	return func(name string) int {
		if i := slices.Index(names, name); i >= 0 {
			return i
		}
		return len(names)
	}
}

// slugOf keeps of s what is safe in a file name and in an anchor.
func slugOf(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s)
	if len(s) > 80 {
		s = s[:80-20] + strconv.Itoa(len(s))
	}
	return s
}
