package netbench

import (
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The sizes of all charts, in the units of their view boxes.
const (
	chartWidth  = 760
	chartMargin = 16
	chartFont   = 13
)

// chartStyle styles every chart, inside a page and on its own. Paths are told
// apart by labels, shape or dashes first and by colour second; the colours keep
// apart in the common kinds of colour blindness, and stand out from both
// surfaces with a contrast of 3 or more, text with 4.5.
const chartStyle = `
:root{color-scheme:light dark;--surface:#ffffff;--ink:#1f2328;--muted:#59636e;--grid:#dde2e7;
--blue:#0072b2;--orange:#c26a00;--green:#00866a;--rose:#b8408c;--sky:#3895d3;--violet:#6a4fb3;--grey:#7d8790}
@media (prefers-color-scheme:dark){:root{--surface:#0d1117;--ink:#e6edf3;--muted:#9198a1;--grid:#2b323b;
--blue:#4da3e0;--orange:#e69f00;--green:#1fb58f;--rose:#e27ab8;--sky:#9bd0f5;--violet:#a48be8;--grey:#8b949e}}
.chart{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
.chart text{fill:var(--ink)}
.chart .muted{fill:var(--muted)}
.chart .small{font-size:11px}
.chart .title{font-size:15px;font-weight:600}
.chart .surface{fill:var(--surface)}
.chart .grid{stroke:var(--grid);stroke-width:1}
.chart .base{stroke:var(--muted);stroke-width:1}
.chart .reference{stroke:var(--ink);stroke-width:1;stroke-dasharray:2 4;opacity:.55}
.chart .bar.own{fill:var(--blue)}
.chart .bar.peer{fill:var(--grey)}
.chart .bar.direct{fill:none;stroke:var(--ink);stroke-width:1.25}
.chart .bar.series{fill:var(--ink)}
.chart .bar.second{fill-opacity:.42}
.chart .bar.direct.second{stroke-dasharray:3 2}
.chart .whisker{stroke:var(--ink);stroke-width:1.25;fill:none}
.chart .curve{fill:none;stroke-width:2;stroke-linejoin:round}
.chart .leader{stroke-width:1;fill:none;opacity:.5}
.chart .c-ink{stroke:var(--ink)}
.chart .c-blue{stroke:var(--blue)}
.chart .c-orange{stroke:var(--orange)}
.chart .c-green{stroke:var(--green)}
.chart .c-rose{stroke:var(--rose)}
.chart .c-sky{stroke:var(--sky)}
.chart .c-violet{stroke:var(--violet)}
.chart .c-grey{stroke:var(--grey)}
`

// chart is one drawing with the table that says the same in numbers.
type chart struct {
	kind     string // ends the name of its file
	title    string
	subtitle string // what the whiskers and the shades mean
	table    chartTable
	draw     func(v *svgBuilder) (height float64)
}

// chartTable is a chart as numbers.
type chartTable struct {
	heads []string // of the cells
	rows  []chartRow
}

type chartRow struct {
	path   string
	cells  []figureCell
	absent string // why there are no cells
}

// figureCell is a figure in writing.
type figureCell struct{ Median, Spread string }

func (c figureCell) String() string {
	if c.Spread == "" {
		return c.Median
	}
	return c.Median + " [" + c.Spread + "]"
}

// cell writes f, which may be nil.
func (s scale) cell(f *Figure) figureCell {
	if f == nil {
		return figureCell{"–", ""}
	}
	return figureCell{s.median(f), s.spread(f)}
}

// chartSVG draws c. The id must differ within a document. On its own it brings its
// title, its style and a surface; in a page these are the page's.
func chartSVG(c *chart, id, heading string, alone bool) string {
	v := &svgBuilder{}
	top := 0.0
	if alone {
		top = 62
		v.text(chartMargin, 28, "title", "start", heading)
		v.text(chartMargin, 48, "muted", "start", c.subtitle)
	}
	v.top = top
	height := c.draw(v) + top
	if alone {
		height += chartMargin
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 %d %s" role="img" aria-labelledby="%s-t %s-d"`,
		chartWidth, coordinate(height), id, id)
	if alone {
		fmt.Fprintf(&b, ` width="%d" height="%s"`, chartWidth, coordinate(height))
	}
	fmt.Fprintf(&b, `><title id="%s-t">%s</title><desc id="%s-d">%s</desc>`,
		id, escaped(heading), id, escaped(c.subtitle+". "+c.table.sentence()))
	if alone {
		fmt.Fprintf(&b, `<style>%s</style><rect class="surface" width="%d" height="%s" rx="6"/>`,
			chartStyle, chartWidth, coordinate(height))
	}
	b.WriteString("\n" + v.body.String() + "</svg>\n")
	return b.String()
}

// sentence reads the table out, for those who don't see the chart.
func (t *chartTable) sentence() string {
	var parts []string
	for _, row := range t.rows {
		if row.absent != "" {
			parts = append(parts, row.path+" "+row.absent)
			continue
		}
		var cells []string
		for i, cell := range row.cells {
			cells = append(cells, t.heads[i]+" "+cell.String())
		}
		parts = append(parts, row.path+": "+strings.Join(cells, ", "))
	}
	return strings.Join(parts, "; ") + "."
}

// svgBuilder collects the elements of a chart whose own origin is top below
// that of the drawing.
type svgBuilder struct {
	body strings.Builder
	top  float64
}

func (v *svgBuilder) text(x, y float64, class, anchor, s string) {
	fmt.Fprintf(&v.body, `<text x="%s" y="%s"`, coordinate(x), coordinate(y+v.top))
	if class != "" {
		fmt.Fprintf(&v.body, ` class="%s"`, class)
	}
	if anchor != "" && anchor != "start" {
		fmt.Fprintf(&v.body, ` text-anchor="%s"`, anchor)
	}
	fmt.Fprintf(&v.body, ">%s</text>\n", escaped(s))
}

// value writes a number and behind it, less loudly, its range.
func (v *svgBuilder) value(x, y float64, number, spread string) {
	fmt.Fprintf(&v.body, `<text x="%s" y="%s" class="value">%s`, coordinate(x), coordinate(y+v.top), escaped(number))
	if spread != "" {
		fmt.Fprintf(&v.body, `<tspan class="muted small" dx="6">%s</tspan>`, escaped(spread))
	}
	v.body.WriteString("</text>\n")
}

func (v *svgBuilder) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&v.body, `<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`+"\n",
		class, coordinate(x1), coordinate(y1+v.top), coordinate(x2), coordinate(y2+v.top))
}

// rect draws a bar; tip is what a pointer that rests on it is told.
func (v *svgBuilder) rect(class string, x, y, width, height float64, tip string) {
	fmt.Fprintf(&v.body, `<rect class="%s" x="%s" y="%s" width="%s" height="%s"><title>%s</title></rect>`+"\n",
		class, coordinate(x), coordinate(y+v.top), coordinate(width), coordinate(height), escaped(tip))
}

// swatch draws a small sample for a legend.
func (v *svgBuilder) swatch(class string, x, y float64) {
	fmt.Fprintf(&v.body, `<rect class="%s swatch" x="%s" y="%s" width="12" height="10"/>`+"\n",
		class, coordinate(x), coordinate(y+v.top))
}

func (v *svgBuilder) whisker(x1, x2, y, end float64) {
	y += v.top
	fmt.Fprintf(&v.body, `<path class="whisker" d="M%s %sv%sM%s %sH%sM%s %sv%s"/>`+"\n",
		coordinate(x1), coordinate(y-end), coordinate(2*end),
		coordinate(x1), coordinate(y), coordinate(x2),
		coordinate(x2), coordinate(y-end), coordinate(2*end))
}

func (v *svgBuilder) polyline(class, dash string, points []point, tip string) {
	var at []string
	for _, p := range points {
		at = append(at, coordinate(p.x)+","+coordinate(p.y+v.top))
	}
	fmt.Fprintf(&v.body, `<polyline class="%s"`, class)
	if dash != "" {
		fmt.Fprintf(&v.body, ` stroke-dasharray="%s"`, dash)
	}
	fmt.Fprintf(&v.body, ` points="%s">`, strings.Join(at, " "))
	if tip != "" {
		fmt.Fprintf(&v.body, `<title>%s</title>`, escaped(tip))
	}
	v.body.WriteString("</polyline>\n")
}

type point struct{ x, y float64 }

// coordinate writes v with as much precision as a screen has.
func coordinate(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		v = 0
	}
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64)
}

// escaped makes s text of an element or of an attribute.
func escaped(s string) string {
	var b strings.Builder
	// A strings.Builder never fails.
	_ = xml.EscapeText(&b, []byte(printable(s)))
	return b.String()
}

// textWidth guesses how wide s is in the chart's font: fonts differ, so that it
// is rather too much than too little.
func textWidth(s string) float64 { return float64(utf8.RuneCountInString(s)) * chartFont * 0.6 }

// shortened cuts s so that it is not wider than width.
func shortened(s string, width float64) string {
	r := []rune(printable(s))
	for textWidth(string(r)) > width+0.5 && len(r) > 2 {
		r = append(r[:len(r)-2], '…')
	}
	return string(r)
}

// niceTicks returns round numbers from 0 to at most greatest, about n of them.
func niceTicks(greatest float64, n int) []float64 {
	if !(greatest > 0) || math.IsInf(greatest, 0) {
		return []float64{0}
	}
	step := math.Pow(10, math.Floor(math.Log10(greatest/float64(n))))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if greatest/(step*m) <= float64(n) {
			step *= m
			break
		}
	}
	var ticks []float64
	for i := 0; float64(i)*step <= greatest*1.0000001 && i <= 2*n+1; i++ {
		ticks = append(ticks, float64(i)*step)
	}
	return ticks
}
