package netbench

import (
	"fmt"
	"math"
)

// barSeries is one bar of each path: a figure in the unit of the chart.
type barSeries struct {
	name   string // for the legend and the table, "" if it is the only one
	column column
}

// barChart compares one figure of all paths, or two that belong together, as
// bars from zero with whiskers over the rounds. Bars have the order of the run.
type barChart struct {
	rows   []*Result
	series []barSeries
	scale  scale
	// The paths without a proxy are what the others are held against: a line
	// through all bars marks their median.
	reference bool
}

// newBarChart returns the chart, nil if no row has a figure.
func newBarChart(kind, title, subtitle string, rows []*Result, series ...barSeries) *chart {
	b := &barChart{rows: rows, reference: len(series) == 1}
	var all []*Figure
	for _, s := range series {
		var figures []*Figure
		for _, r := range rows {
			if f := s.column.figure(r); f != nil {
				figures = append(figures, f)
			}
		}
		if len(figures) > 0 {
			b.series = append(b.series, s)
			all = append(all, figures...)
		}
	}
	if len(b.series) == 0 {
		return nil
	}
	first := b.series[0].column
	b.scale = scaleOf(first.quantity, first.unit, all)
	return &chart{
		kind:     kind,
		title:    title,
		subtitle: subtitle + " · " + b.scale.unit + ", median, whiskers to least and greatest round",
		table:    b.table(),
		draw:     b.draw,
	}
}

func (b *barChart) table() chartTable {
	var t chartTable
	for _, s := range b.series {
		head := b.scale.unit
		if s.name != "" {
			head = s.name + ", " + head
		}
		t.heads = append(t.heads, head)
	}
	for _, r := range b.rows {
		row := chartRow{path: printable(r.Path), absent: b.absence(r)}
		for _, s := range b.series {
			row.cells = append(row.cells, b.scale.cell(s.column.figure(r)))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// absence tells why r has no bar, "" if it has one.
func (b *barChart) absence(r *Result) string {
	for _, s := range b.series {
		if s.column.figure(r) != nil {
			return ""
		}
	}
	if why := absence(r); why != "" {
		return why
	}
	return "not measured"
}

func (b *barChart) draw(v *svgBuilder) float64 {
	const (
		barHeight  = 14.0
		pairHeight = 13.0
		pairGap    = 2.0
		rowGap     = 12.0
	)
	rowHeight := barHeight
	if len(b.series) > 1 {
		rowHeight = float64(len(b.series))*pairHeight + float64(len(b.series)-1)*pairGap
	}

	labels, values, greatest := 0.0, 0.0, 0.0
	for _, r := range b.rows {
		labels = math.Max(labels, textWidth(printable(r.Path)))
		for _, s := range b.series {
			if f := s.column.figure(r); f != nil {
				values = math.Max(values, textWidth(b.scale.median(f)+"  "+b.scale.spread(f)))
				greatest = math.Max(greatest, f.Max*b.scale.factor)
			}
		}
	}
	labels = math.Min(labels, chartWidth/4)
	left := chartMargin + labels + 10
	width := chartWidth - chartMargin - left - values - 10
	if greatest <= 0 {
		greatest = 1
	}
	at := func(value float64) float64 { return left + math.Max(0, value)/greatest*width }

	y := b.legend(v)
	top := y
	bottom := top + float64(len(b.rows))*(rowHeight+rowGap)
	for _, tick := range niceTicks(greatest, 5) {
		class := "grid"
		if tick == 0 {
			class = "base"
		}
		v.line(class, at(tick), top, at(tick), bottom)
		v.text(at(tick), bottom+14, "muted small", "middle", number(tick))
	}
	v.text(chartWidth-chartMargin, bottom+14, "muted small", "end", b.scale.unit)

	for _, r := range b.rows {
		middle := y + rowGap/2 + rowHeight/2
		path := printable(r.Path)
		v.text(left-10, middle+4.5, "", "end", shortened(path, labels))
		if why := b.absence(r); why != "" {
			v.text(left+8, middle+4.5, "muted", "start", shortened(why, width+values))
		}
		each := barHeight
		if len(b.series) > 1 {
			each = pairHeight
		}
		barTop := y + rowGap/2
		for i, s := range b.series {
			f := s.column.figure(r)
			if f != nil {
				b.bar(v, r, s, i, f, at, barTop, each)
			}
			barTop += each + pairGap
		}
		y += rowHeight + rowGap
	}
	if b.reference {
		for _, r := range b.rows {
			if f := b.series[0].column.figure(r); r.Path == PathDirect && f != nil {
				v.line("reference", at(f.Median*b.scale.factor), top, at(f.Median*b.scale.factor), bottom)
			}
		}
	}
	return bottom + 20
}

func (b *barChart) bar(v *svgBuilder, r *Result, s barSeries, n int, f *Figure, at func(float64) float64, top, height float64) {
	class := "bar " + role(r.Path)
	if n > 0 {
		class += " second"
	}
	least, median, most := f.Min*b.scale.factor, f.Median*b.scale.factor, f.Max*b.scale.factor
	name := printable(r.Path)
	if s.name != "" {
		name += ", " + s.name
	}
	spread := b.scale.spread(f)
	tip := fmt.Sprintf("%s: %s %s", name, b.scale.median(f), b.scale.unit)
	if spread != "" {
		tip += fmt.Sprintf(" (%s over %s)", spread, counted(max(len(f.Samples), r.Rounds), "round"))
	}
	v.rect(class, at(0), top, at(median)-at(0), height, tip)
	middle := top + height/2
	if spread != "" {
		v.whisker(at(least), at(most), middle, height/2-1.5)
	}
	x := at(math.Max(median, most)) + 8
	v.value(x, middle+4.5, b.scale.median(f), spread)
}

// legend says what the fills mean and returns the height that it took.
func (b *barChart) legend(v *svgBuilder) float64 {
	x := float64(chartMargin)
	entry := func(class, name string) {
		v.swatch(class, x, 4)
		v.text(x+18, 13, "muted", "start", name)
		x += 18 + textWidth(name) + 18
	}
	if len(b.series) > 1 {
		entry("bar series", b.series[0].name)
		entry("bar series second", b.series[1].name)
	}
	for _, kind := range []string{roleDirect, roleOwn, rolePeer} {
		for _, r := range b.rows {
			if role(r.Path) == kind {
				entry("bar "+kind, roleName(r.Path))
				break
			}
		}
	}
	return 26
}

// The roles of a path, which are its colour where bars already have labels.
const (
	roleDirect = "direct"
	roleOwn    = "own"
	rolePeer   = "peer"
)

func role(path string) string {
	switch {
	case path == PathDirect, isNormalMode(path):
		return roleDirect
	case IsOwn(path), isMode(path):
		return roleOwn
	default:
		return rolePeer
	}
}

// roleName says what the colour of a path means.
func roleName(path string) string {
	switch role := role(path); {
	case isNormalMode(path):
		return "no program"
	case isMode(path):
		return "BPF program"
	case role == roleDirect:
		return "no proxy"
	case role == roleOwn:
		return "spliced"
	default:
		return "other proxies"
	}
}
