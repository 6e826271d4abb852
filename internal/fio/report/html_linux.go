package report

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
	"time"

	"github.com/spliced-io/spliced/internal/fio/run"
	"github.com/spliced-io/spliced/internal/fio/stat"
)

// HTML writes one page that needs nothing else: a table of the jobs, their
// latency percentiles, the bandwidth over time and the jobs beside each other.
func (r *Report) HTML(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>spliced fio</title><style>
body{font:14px/1.5 system-ui,sans-serif;max-width:980px;margin:2em auto;padding:0 1em;color:#222;background:#fff}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#444}
</style>`)
	fmt.Fprintf(&b, "<h1>spliced fio</h1><p>%s, spliced %s</p>\n", html.EscapeString(r.Time.Format(time.RFC1123)), html.EscapeString(r.Version))
	rows := r.rows()
	r.table(&b, rows)
	bars(&b, rows)
	percentileChart(&b, rows)
	r.timeChart(&b)
	b.WriteString("</html>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// A row is one direction of one job.
type row struct {
	name string
	res  *run.Result
	dir  *stat.Dir
}

func (r *Report) rows() []row {
	var list []row
	for i := range r.Results {
		res := &r.Results[i]
		for dir := range res.Stat.Dirs {
			if d := &res.Stat.Dirs[dir]; d.IOs > 0 {
				name := fmt.Sprintf("%s (%s) %s", res.Stat.Name, res.Options.Engine, stat.Name(dir))
				list = append(list, row{name, res, d})
			}
		}
	}
	return list
}

// hist is the row's latency histogram: of the completion, or of the whole.
func (r row) hist() *stat.Hist {
	if r.dir.Clat.Hist != nil {
		return r.dir.Clat.Hist
	}
	return r.dir.Lat.Hist
}

func (r *Report) table(b *strings.Builder, rows []row) {
	b.WriteString("<table><tr><th>job</th><th>bandwidth</th><th>IOPS</th><th>p50</th><th>p99</th><th>p99.9</th><th>CPU</th><th>zero-copy</th></tr>\n")
	for _, w := range rows {
		bw, _ := r.rates(w.res, uint64(rate(w.dir.Bytes, w.dir.Runtime)))
		p := []string{"", "", ""}
		if h := w.hist(); h != nil {
			for i, v := range h.Percentiles([]float64{50, 99, 99.9}) {
				p[i] = time.Duration(v).Round(10 * time.Nanosecond).String()
			}
		}
		user, system := cpu(w.res.Stat)
		zero := ""
		if e := w.res.Evidence; e != nil {
			zero = strings.TrimSpace(e.Shared + " " + e.Source)
		}
		fmt.Fprintf(b, "<tr><td>%s</td><td>%s</td><td>%.0f</td><td>%s</td><td>%s</td><td>%s</td><td>%.1f%%</td><td>%s</td></tr>\n",
			html.EscapeString(w.name), bw, rate(w.dir.IOs, w.dir.Runtime), p[0], p[1], p[2], user+system, html.EscapeString(zero))
	}
	b.WriteString("</table>\n")
}

var palette = [...]string{"#3366cc", "#dc7633", "#27865a", "#8e44ad", "#b03a2e", "#1f8a9e", "#7d6608", "#5d6d7e"}

func colour(i int) string { return palette[i%len(palette)] }

func bars(b *strings.Builder, rows []row) {
	if len(rows) == 0 {
		return
	}
	most := 0.0
	for _, w := range rows {
		most = max(most, rate(w.dir.Bytes, w.dir.Runtime))
	}
	const line = 26
	fmt.Fprintf(b, `<h2>Bandwidth of each job</h2><svg viewBox="0 0 940 %d" role="img">`, len(rows)*line+8)
	for i, w := range rows {
		v := rate(w.dir.Bytes, w.dir.Runtime)
		y := i*line + 4
		fmt.Fprintf(b, `<text x="0" y="%d">%s</text><rect x="330" y="%d" width="%.1f" height="18" fill="%s"/><text x="%.1f" y="%d">%s</text>`,
			y+14, html.EscapeString(w.name), y, 480*v/max(most, 1), colour(i), 336+480*v/max(most, 1), y+14,
			amount(uint64(v), 4, true, "B/s"))
	}
	b.WriteString("</svg>\n")
}

// A frame is a chart with axes.
type frame struct {
	b                      *strings.Builder
	left, top, wide, high  float64
	fromX, toX, fromY, toY float64
}

func newFrame(b *strings.Builder, title string, legend []string) *frame {
	f := &frame{b: b, left: 80, top: 10, wide: 840, high: 280}
	fmt.Fprintf(b, `<h2>%s</h2><svg viewBox="0 0 940 %d" role="img"><rect x="%g" y="%g" width="%g" height="%g" fill="none" stroke="#bbb"/>`,
		title, 340+18*len(legend), f.left, f.top, f.wide, f.high)
	for i, name := range legend {
		y := 344 + 18*i
		fmt.Fprintf(b, `<rect x="80" y="%d" width="12" height="12" fill="%s"/><text x="98" y="%d">%s</text>`, y-11, colour(i), y, html.EscapeString(name))
	}
	return f
}

func (f *frame) x(v float64) float64 {
	return f.left + f.wide*(v-f.fromX)/max(f.toX-f.fromX, 1e-9)
}

func (f *frame) y(v float64) float64 {
	return f.top + f.high*(1-(v-f.fromY)/max(f.toY-f.fromY, 1e-9))
}

func (f *frame) tickX(v float64, label string) {
	fmt.Fprintf(f.b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, f.x(v), f.top+f.high+18, label)
}

func (f *frame) tickY(v float64, label string) {
	fmt.Fprintf(f.b, `<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="#eee"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`,
		f.left, f.left+f.wide, f.y(v), f.y(v), f.left-6, f.y(v)+4, label)
}

func (f *frame) line(points [][2]float64, i int) {
	var list []string
	for _, p := range points {
		list = append(list, fmt.Sprintf("%.1f,%.1f", f.x(p[0]), f.y(p[1])))
	}
	fmt.Fprintf(f.b, `<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>`, colour(i), strings.Join(list, " "))
}

func (f *frame) end() { f.b.WriteString("</svg>\n") }

// percentileChart: the x axis counts nines, the y axis is logarithmic.
func percentileChart(b *strings.Builder, rows []row) {
	list := []float64{0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99}
	nines := func(p float64) float64 { return -math.Log10(1 - p/100) }
	var names []string
	var lines [][][2]float64
	low, high := math.Inf(1), 0.0
	for _, w := range rows {
		h := w.hist()
		if h == nil {
			continue
		}
		var points [][2]float64
		for i, v := range h.Percentiles(list) {
			y := math.Log10(max(float64(v), 1))
			low, high = min(low, y), max(high, y)
			points = append(points, [2]float64{nines(list[i]), y})
		}
		names, lines = append(names, w.name), append(lines, points)
	}
	if len(lines) == 0 {
		return
	}
	f := newFrame(b, "Latency percentiles", names)
	f.toX, f.fromY, f.toY = nines(99.99), math.Floor(low), math.Ceil(high)
	for _, p := range []float64{0, 50, 90, 99, 99.9, 99.99} {
		f.tickX(nines(p), fmt.Sprintf("%g%%", p))
	}
	for y := f.fromY; y <= f.toY; y++ {
		f.tickY(y, time.Duration(math.Pow(10, y)).String())
	}
	for i, l := range lines {
		f.line(l, i)
	}
	f.end()
}

func (r *Report) timeChart(b *strings.Builder) {
	if len(r.Intervals) < 2 {
		return
	}
	most := 0.0
	var lines [stat.Directions][][2]float64
	for _, v := range r.Intervals {
		for dir := range lines {
			bw := float64(v.Figures.Bytes[dir]) / max((v.End-v.Begin).Seconds(), 1e-9)
			most = max(most, bw)
			lines[dir] = append(lines[dir], [2]float64{v.End.Seconds(), bw})
		}
	}
	f := newFrame(b, "Bandwidth over time", []string{"read", "write", "trim"})
	f.toX, f.toY = r.Intervals[len(r.Intervals)-1].End.Seconds(), max(most*1.05, 1)
	for i := range 6 {
		f.tickX(f.toX*float64(i)/5, fmt.Sprintf("%.1fs", f.toX*float64(i)/5))
		f.tickY(f.toY*float64(i)/5, amount(uint64(f.toY*float64(i)/5), 4, true, "B/s"))
	}
	for dir, l := range lines {
		f.line(l, dir)
	}
	f.end()
}
