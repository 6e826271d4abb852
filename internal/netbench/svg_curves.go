package netbench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// curveChart draws the distribution of latency of all paths: percentiles on a
// scale that gives each further nine the same room, latency on a logarithmic
// one.
type curveChart struct {
	rows   []*Result
	curves []curve
	scale  scale
	nines  float64 // the right end of the scale of percentiles
	low    float64 // the ends of the scale of latency, scaled
	high   float64
}

// atMax is where the greatest latency stands among the percentiles: behind all,
// in room of its own.
const (
	atMax   = math.MaxFloat64
	maxRoom = 0.6 // in nines
)

type curve struct {
	path   string
	style  curveStyle
	points []point // nines and latency, scaled
}

// curveStyle tells a path from the others, the same in each chart.
type curveStyle struct{ class, dash string }

// newCurveChart returns the chart, nil if no row has a latency.
func newCurveChart(title, subtitle string, rows []*Result) *chart {
	c := &curveChart{rows: rows}
	var medians []*Figure
	for _, r := range rows {
		if r.Latency != nil {
			medians = append(medians, &r.Latency.P50)
		}
	}
	c.scale = scaleOf(microsQuantity, "", medians)
	c.low, c.high = math.Inf(1), 0
	others := 0
	for _, r := range rows {
		points := curvePoints(r, c.scale.factor)
		if len(points) < 2 {
			continue
		}
		style, known := knownCurveStyle(r.Path)
		if !known {
			style = otherCurveStyle(others)
			others++
		}
		c.curves = append(c.curves, curve{printable(r.Path), style, points})
		for _, p := range points {
			if p.x < atMax {
				c.nines = math.Max(c.nines, p.x)
			}
			c.low = math.Min(c.low, p.y)
			c.high = math.Max(c.high, p.y)
		}
	}
	if len(c.curves) == 0 {
		return nil
	}
	c.nines = math.Max(c.nines, 1)
	// A little air, so that no curve lies on the frame.
	c.low *= 0.9
	c.high *= 1.12
	return &chart{
		kind:     "latency",
		title:    title,
		subtitle: subtitle + " · " + c.scale.unit + ", all rounds together, logarithmic",
		table:    c.table(),
		draw:     c.draw,
	}
}

// curvePoints returns the distribution of r, by its curve or, without one, by
// its percentiles. The maximum has infinitely many nines: see atMax.
func curvePoints(r *Result, factor float64) []point {
	l := r.Latency
	if l == nil {
		return nil
	}
	given := slices.Clone(l.Curve)
	if len(given) == 0 && len(l.P50.Samples) > 0 {
		given = []CurvePoint{{50, l.P50.Median}, {90, l.P90.Median}, {99, l.P99.Median}, {99.9, l.P999.Median}}
	}
	slices.SortStableFunc(given, func(a, b CurvePoint) int {
		return cmp.Or(cmp.Compare(a.Percentile, b.Percentile), cmp.Compare(a.Us, b.Us))
	})
	var points []point
	for _, p := range given {
		if !(p.Us > 0) || math.IsInf(p.Us, 0) || p.Percentile < 0 {
			continue
		}
		nines := -math.Log10(1 - p.Percentile/100)
		if p.Percentile >= 100 || nines > 9 {
			nines = atMax
		}
		points = append(points, point{nines, p.Us * factor})
	}
	return points
}

func (c *curveChart) table() chartTable {
	var t chartTable
	percentiles := []struct {
		name string
		get  func(*Latency) *Figure
	}{
		{"p50", func(l *Latency) *Figure { return &l.P50 }},
		{"p90", func(l *Latency) *Figure { return &l.P90 }},
		{"p99", func(l *Latency) *Figure { return &l.P99 }},
		{"p99.9", func(l *Latency) *Figure { return &l.P999 }},
	}
	scales := make([]scale, len(percentiles))
	for i, p := range percentiles {
		var figures []*Figure
		for _, r := range c.rows {
			if r.Latency != nil {
				figures = append(figures, p.get(r.Latency))
			}
		}
		// The chart's unit, but no more decimals than the tail deserves.
		scales[i] = c.scale
		scales[i].decimals = c.scale.decimalsFor(figures)
		t.heads = append(t.heads, p.name+", "+c.scale.unit)
	}
	for _, r := range c.rows {
		row := chartRow{path: printable(r.Path), absent: absence(r)}
		if row.absent == "" && r.Latency == nil {
			row.absent = "not measured"
		}
		for i, p := range percentiles {
			var f *Figure
			if r.Latency != nil {
				f = p.get(r.Latency)
			}
			row.cells = append(row.cells, scales[i].cell(f))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func (c *curveChart) draw(v *svgBuilder) float64 {
	const height, lineHeight = 330.0, 16.0
	labels := 0.0
	for _, cv := range c.curves {
		labels = math.Max(labels, textWidth(cv.path))
	}
	labels = math.Min(labels, chartWidth/4)
	left, top := chartMargin+46.0, 22.0
	right := chartWidth - chartMargin - labels - 26
	bottom := top + math.Max(height, float64(len(c.curves))*lineHeight)
	x := func(nines float64) float64 {
		return left + math.Min(nines, c.nines+maxRoom)/(c.nines+maxRoom)*(right-left)
	}
	y := func(latency float64) float64 {
		return bottom - math.Log(latency/c.low)/math.Log(c.high/c.low)*(bottom-top)
	}

	v.text(chartMargin, 12, "muted small", "start", c.scale.unit)
	for _, tick := range logTicks(c.low, c.high) {
		v.line("grid", left, y(tick), right, y(tick))
		v.text(left-8, y(tick)+4, "muted small", "end", number(tick))
	}
	for _, tick := range percentileTicks(c.nines) {
		v.line("grid", x(tick.nines), top, x(tick.nines), bottom)
		v.text(x(tick.nines), bottom+16, "muted small", "middle", tick.text)
	}
	v.line("grid", right, top, right, bottom)
	v.text(right, bottom+16, "muted small", "middle", "max")
	v.line("base", left, bottom, right, bottom)
	v.text((left+right)/2, bottom+34, "muted small", "middle", "percentile of exchanges")

	ends := make([]float64, len(c.curves))
	for i, cv := range c.curves {
		points := make([]point, len(cv.points))
		for j, p := range cv.points {
			points[j] = point{x(p.x), y(p.y)}
		}
		last := points[len(points)-1]
		ends[i] = last.y
		v.polyline("curve "+cv.style.class, cv.style.dash, points, curveTip(cv, c.scale.unit))
	}
	for i, at := range spreadLabels(ends, top, bottom, lineHeight) {
		cv := c.curves[i]
		end := cv.points[len(cv.points)-1]
		v.polyline("leader "+cv.style.class, "", []point{{x(end.x), y(end.y)}, {right + 8, at}, {right + 20, at}}, "")
		v.text(right+24, at+4.5, "", "start", shortened(cv.path, labels))
	}
	return bottom + 40
}

func curveTip(cv curve, unit string) string {
	last := cv.points[len(cv.points)-1]
	return fmt.Sprintf("%s: up to %s %s", cv.path, number(last.y), unit)
}

// spreadLabels moves labels that want to stand at wanted apart, at least gap
// from each other, in the order of what they want, and within top and bottom if
// there is room.
func spreadLabels(wanted []float64, top, bottom, gap float64) []float64 {
	order := make([]int, len(wanted))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(wanted[a], wanted[b]) })
	placed := slices.Clone(wanted)
	for i, n := range order {
		placed[n] = math.Max(placed[n], top)
		if i > 0 {
			placed[n] = math.Max(placed[n], placed[order[i-1]]+gap)
		}
	}
	for i := len(order) - 1; i >= 0; i-- {
		limit := bottom
		if i < len(order)-1 {
			limit = placed[order[i+1]] - gap
		}
		placed[order[i]] = math.Min(placed[order[i]], limit)
	}
	return placed
}

type percentileTick struct {
	nines float64
	text  string
}

// percentileTicks returns 0, 50 and each further nine up to nines.
func percentileTicks(nines float64) []percentileTick {
	ticks := []percentileTick{{0, "0"}, {-math.Log10(0.5), "50 %"}}
	for n := 1; float64(n) <= nines+1e-9 && n <= 9; n++ {
		text := "9" + "0"
		if n > 1 {
			text = "99"
		}
		if n > 2 {
			text += "." + strings.Repeat("9", n-2)
		}
		ticks = append(ticks, percentileTick{float64(n), text + " %"})
	}
	return ticks
}

// logTicks returns round numbers between low and high: 1, 2 and 5 of each
// decade, or only the decades of a wide range.
func logTicks(low, high float64) []float64 {
	if !(low > 0) || !(high > low) || math.IsInf(high, 0) {
		return nil
	}
	steps := []float64{1, 2, 5}
	if high/low > 1e4 {
		steps = []float64{1}
	} else if high/low < 4 {
		steps = []float64{1, 1.5, 2, 3, 4, 5, 6, 8}
	}
	var ticks []float64
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		for _, m := range steps {
			// Through text, so that 0.3 is not 0.30000000000000004.
			tick, err := strconv.ParseFloat(fmt.Sprintf("%ge%d", m, int(e)), 64)
			if err == nil && tick >= low && tick <= high {
				ticks = append(ticks, tick)
			}
		}
	}
	return ticks
}

// knownCurveStyle returns the style of the paths that have one of their own:
// this project's engines are solid, its peers dashed.
func knownCurveStyle(path string) (curveStyle, bool) {
	switch path {
	case PathDirect:
		return curveStyle{"c-ink", ""}, true
	case PathCopy:
		return curveStyle{"c-sky", ""}, true
	case PathSplice:
		return curveStyle{"c-blue", ""}, true
	case PathSockmap:
		return curveStyle{"c-rose", ""}, true
	case PathWire:
		return curveStyle{"c-orange", ""}, true
	case PathAuto:
		return curveStyle{"c-green", ""}, true
	case PathGoCopy:
		return curveStyle{"c-sky", "7 4"}, true
	case PathHAProxy:
		return curveStyle{"c-grey", "7 4"}, true
	case PathHAProxySplice:
		return curveStyle{"c-violet", "7 4"}, true
	case PathNginx:
		return curveStyle{"c-green", "2 3"}, true
	case PathSocat:
		return curveStyle{"c-rose", "2 3"}, true
	}
	return curveStyle{}, false
}

// otherCurveStyle returns the style of the nth path that the caller named.
func otherCurveStyle(n int) curveStyle {
	colours := []string{"c-orange", "c-blue", "c-rose", "c-green", "c-violet", "c-grey"}
	dashes := []string{"10 3 2 3", "2 3", "7 4"}
	return curveStyle{colours[n%len(colours)], dashes[n/len(colours)%len(dashes)]}
}
