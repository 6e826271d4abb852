package netbench

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed html.tmpl
var htmlTemplate string

// htmlPage is what the template shows.
type htmlPage struct {
	Tool, Started, Took string
	Style               template.CSS
	Machine             []htmlFact
	Config              []htmlFact
	Notes               []string
	Overview            htmlOverview
	Groups              []htmlGroup
	Peers               []htmlPeer
}

type htmlFact struct{ Name, Value string }

type htmlOverview struct {
	Heads []htmlOverviewHead
	Rows  []htmlOverviewRow
}

type htmlOverviewHead struct{ Anchor, Workload, Detail, Figure string }

type htmlOverviewRow struct {
	Path, Role string
	Cells      []htmlOverviewCell
}

type htmlOverviewCell struct {
	figureCell
	Ratio, Absent string
	Partial       string // of how many rounds the figure is, if some failed
}

type htmlGroup struct {
	Anchor, Title, Workload, Detail string
	Rounds                          string
	Charts                          []htmlChart
	All                             htmlTable
	Remarks                         []string
}

type htmlChart struct {
	Kind, Title, Subtitle string
	SVG                   template.HTML
	Table                 htmlTable
}

type htmlTable struct {
	Caption string
	Heads   []string
	Rows    []htmlRow
}

type htmlRow struct {
	Path   string
	Cells  []figureCell
	Absent string
}

type htmlPeer struct {
	Path, Name, Version, Command, Configuration, Missing string
}

// WriteHTML writes the results as one page that needs nothing else: no script,
// no font, no image, no network. It follows the light or dark preference of the
// reader, and each chart has its table.
func WriteHTML(w io.Writer, f *File) error {
	t, err := template.New("report").Parse(htmlTemplate)
	if err != nil {
		return fmt.Errorf("write html: %w", err)
	}
	// Into memory first: no half of a page is ever written.
	var b strings.Builder
	if err := t.Execute(&b, pageOf(f)); err != nil {
		return fmt.Errorf("write html: %w", err)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write html: %w", err)
	}
	return nil
}

func pageOf(f *File) *htmlPage {
	page := &htmlPage{
		Tool:    printable(f.Tool),
		Started: f.Started.Format("2006-01-02 15:04 MST"),
		Took:    time.Duration(f.Seconds * float64(time.Second)).Round(time.Second).String(),
		Style:   template.CSS(chartStyle), // a constant of this package
		Machine: machineFacts(&f.Machine, true),
		Config:  configFacts(f),
	}
	for _, n := range f.Notes {
		page.Notes = append(page.Notes, printable(n))
	}
	groups := groupsOf(f)
	page.Overview = overviewOf(f, groups)
	for i := range groups {
		page.Groups = append(page.Groups, groups[i].html())
	}
	for _, p := range f.Peers {
		page.Peers = append(page.Peers, htmlPeer{
			Path:          printable(p.Path),
			Name:          printable(p.Name),
			Version:       printable(p.Version),
			Command:       commandLine(p.Command),
			Configuration: strings.TrimSpace(printableText(p.Configuration)),
			Missing:       printable(p.Missing),
		})
	}
	return page
}

func (g *reportGroup) html() htmlGroup {
	h := htmlGroup{
		Anchor:   g.slug,
		Title:    g.Title(),
		Workload: printable(g.Workload),
		Detail:   g.Detail(),
		Rounds:   counted(g.Rounds(), "round"),
		Remarks:  g.remarks(),
		All:      g.allFigures(),
	}
	for _, c := range g.charts() {
		// The drawing escapes every text that is not its own.
		svg := template.HTML(chartSVG(c, g.slug+"-"+c.kind, c.title+", "+g.Title()+", "+g.Detail(), false))
		h.Charts = append(h.Charts, htmlChart{c.kind, c.title, c.subtitle, svg, c.table.html(c.title)})
	}
	return h
}

func (t *chartTable) html(caption string) htmlTable {
	h := htmlTable{Caption: caption, Heads: t.heads}
	for _, row := range t.rows {
		h.Rows = append(h.Rows, htmlRow{row.path, row.cells, row.absent})
	}
	return h
}

func (g *reportGroup) allFigures() htmlTable {
	columns := g.filled(false)
	h := htmlTable{Caption: "All figures, median and least to greatest round"}
	scales := make([]scale, len(columns))
	for i, c := range columns {
		scales[i] = c.scale(g.Rows)
		h.Heads = append(h.Heads, c.headWith(scales[i]))
	}
	for _, r := range g.Rows {
		row := htmlRow{Path: printable(g.rowName(r)), Absent: absence(r)}
		for i, c := range columns {
			row.Cells = append(row.Cells, scales[i].cell(c.figure(r)))
		}
		h.Rows = append(h.Rows, row)
	}
	return h
}

// headWith names the column with the unit of s.
func (c column) headWith(s scale) string {
	if s.unit == "" {
		return c.head
	}
	return c.head + ", " + s.unit
}

func overviewOf(f *File, groups []reportGroup) htmlOverview {
	var o htmlOverview
	var paths []string
	for i := range groups {
		g := &groups[i]
		main := g.mainColumn()
		o.Heads = append(o.Heads, htmlOverviewHead{
			g.slug, printable(g.Workload), g.Detail(), main.headWith(main.scale(g.Rows)),
		})
		for _, r := range g.Rows {
			if !slices.Contains(paths, r.Path) {
				paths = append(paths, r.Path)
			}
		}
	}
	order := orderOf(f.Config.Paths)
	slices.SortStableFunc(paths, func(a, b string) int { return order(a) - order(b) })
	for _, path := range paths {
		row := htmlOverviewRow{Path: printable(path), Role: role(path)}
		for i := range groups {
			row.Cells = append(row.Cells, groups[i].overviewCell(path))
		}
		o.Rows = append(o.Rows, row)
	}
	return o
}

func (g *reportGroup) mainColumn() column { return columnsOf(g.Workload)[0] }

func (g *reportGroup) overviewCell(path string) htmlOverviewCell {
	main := g.mainColumn()
	s := main.scale(g.Rows)
	for _, r := range g.Rows {
		if r.Path != path {
			continue
		}
		fig := main.figure(r)
		switch why := absence(r); {
		case r.Missing != "":
			return htmlOverviewCell{Absent: "missing"}
		case why != "" && r.Error != "":
			return htmlOverviewCell{Absent: "failed"}
		case fig == nil:
			return htmlOverviewCell{Absent: "–"}
		}
		cell := htmlOverviewCell{figureCell: s.cell(fig)}
		if g.partial(r) {
			cell.Partial = fmt.Sprintf("failed, but for %d of %d rounds", r.Rounds, g.asked)
		}
		if r.RatioToDirect != nil && path != PathDirect {
			cell.Ratio = strconv.FormatFloat(r.RatioToDirect.Median, 'f', 2, 64) + " × direct"
		}
		return cell
	}
	return htmlOverviewCell{Absent: "–"}
}

func machineFacts(m *Machine, withName bool) []htmlFact {
	var facts []htmlFact
	add := func(name, value string) {
		if value = printable(value); value != "" {
			facts = append(facts, htmlFact{name, value})
		}
	}
	if withName {
		add("Host", m.Hostname)
	}
	add("System", m.OS+" "+m.Kernel+" "+m.Arch)
	cpus := counted(m.CPUs, "CPU")
	if m.CPUModel != "" {
		cpus += ", " + m.CPUModel
	}
	if m.Virtual {
		cpus += ", virtual: expect stolen time and slow wake-ups"
	}
	add("Processor", cpus)
	if m.MemoryBytes > 0 {
		s := scaleFor(byteQuantity, float64(m.MemoryBytes))
		add("Memory", strconv.FormatFloat(float64(m.MemoryBytes)*s.factor, 'f', 1, 64)+" "+s.unit)
	}
	add("Idle driver", m.IdleDriver)
	add("Congestion control", m.CongestionControl)
	add("Go", m.Go)
	for _, name := range slices.Sorted(maps.Keys(m.Sysctls)) {
		add(printable(name), m.Sysctls[name])
	}
	for _, name := range slices.Sorted(maps.Keys(m.Mitigations)) {
		add("Mitigation "+printable(name), m.Mitigations[name])
	}
	return facts
}

func configFacts(f *File) []htmlFact {
	c := &f.Config
	facts := []htmlFact{
		{"Topology", printable(c.Topology)},
		{"Paths", printable(strings.Join(c.Paths, ", "))},
		{"Rounds", fmt.Sprintf("%d, paths interleaved in each", c.Rounds)},
		{"One round", fmt.Sprintf("%s s measured after %s s of warm-up", number(c.DurationS), number(c.WarmupS))},
	}
	if slices.Contains(c.Workloads, WorkloadRROpen) {
		facts = append(facts, htmlFact{"Rate of " + WorkloadRROpen, number(c.RatePerS) + " exchanges per second, all streams together"})
	}
	if c.ParseBytes > 0 {
		facts = append(facts, htmlFact{"Stream parser", sizeText(c.ParseBytes) + " messages"})
	}
	if c.DelayS > 0 {
		facts = append(facts, htmlFact{"Consumer", number(c.DelayS) + " s late"})
	}
	if c.MaxQueuedBytes > 0 {
		facts = append(facts, htmlFact{"Queued", "at most " + sizeText(c.MaxQueuedBytes) + ", then the sender waits"})
	}
	return facts
}

// commandLine writes a command so that a shell would read it back.
func commandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		a = printable(a)
		if a == "" || strings.ContainsAny(a, " \"'\\$`|&;<>()*?[]#~{}!") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		quoted[i] = a
	}
	return strings.Join(quoted, " ")
}
