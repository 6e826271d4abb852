package netbench

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestBarsShowTheirFigures(t *testing.T) {
	t.Parallel()
	f := sampleRun()
	g := groupNamed(t, f, "bulk-8x131072")
	svg := drawn(t, g, "throughput")

	bars := barsOf(svg)
	if len(bars) != 8 {
		t.Fatalf("%d bars, want one for each of the 8 paths with figures", len(bars))
	}
	whiskers := svg.all("path", "whisker")
	if len(whiskers) != len(bars) {
		t.Errorf("%d whiskers for %d bars", len(whiskers), len(bars))
	}
	direct := bars[0]
	i := 0
	for _, r := range g.Rows {
		if r.Throughput == nil {
			continue
		}
		bar, whisker := bars[i], whiskers[i]
		i++
		if !strings.HasPrefix(bar.text(), r.Path+": ") {
			t.Errorf("bar %d is %q, want that of %s", i, bar.text(), r.Path)
		}
		scale := attr(t, direct, "width") / g.Rows[0].Throughput.Median
		if got, want := attr(t, bar, "width"), r.Throughput.Median*scale; math.Abs(got-want) > 0.1 {
			t.Errorf("%s: the bar is %v wide, want %v", r.Path, got, want)
		}
		left := attr(t, bar, "x")
		low, high := ends(t, whisker)
		if math.Abs(low-left-r.Throughput.Min*scale) > 0.1 || math.Abs(high-left-r.Throughput.Max*scale) > 0.1 {
			t.Errorf("%s: the whisker goes from %v to %v, want %v to %v",
				r.Path, low-left, high-left, r.Throughput.Min*scale, r.Throughput.Max*scale)
		}
		wantClass := map[string]string{PathDirect: "direct", PathCopy: "own", PathSplice: "own", PathWire: "own"}[r.Path]
		if wantClass == "" {
			wantClass = "peer"
		}
		if !hasClasses(bar, []string{wantClass}) {
			t.Errorf("%s is drawn as %q, want %s", r.Path, bar.attrs["class"], wantClass)
		}
	}
	for _, want := range []string{"missing: nginx: not found in $PATH", "failed: round 1: byte 4096 differs: got 0x00, want 0x17"} {
		if !hasText(svg, want) {
			t.Errorf("no %q beside the axis", want)
		}
	}
	if len(svg.all("line", "reference")) != 1 {
		t.Error("no line of reference through the bars")
	}
}

func TestPairsOfBars(t *testing.T) {
	t.Parallel()
	f := sampleRun()
	for slug, kind := range map[string]string{
		"bulk-1x131072": "cpu", "rr-1x64": "cpu-op", "idle-1000x0": "memory", "mixed-1x131072": "throughput",
	} {
		svg := drawn(t, groupNamed(t, f, slug), kind)
		var first, second int
		for _, b := range barsOf(svg) {
			if hasClasses(b, []string{"second"}) {
				second++
			} else {
				first++
			}
		}
		// Direct has no proxy: no CPU and no memory of one.
		want := 7
		if slug == "mixed-1x131072" {
			want = 8
		}
		if first != want || second != 8 {
			t.Errorf("%s %s: %d and %d bars, want %d and 8", slug, kind, first, second, want)
		}
	}
}

func TestLatencyCurves(t *testing.T) {
	t.Parallel()
	f := sampleRun()
	g := groupNamed(t, f, "rr-open-1x64")
	svg := drawn(t, g, "latency")
	curves := svg.all("polyline", "curve")
	if len(curves) != 8 || len(svg.all("polyline", "leader")) != 8 {
		t.Fatalf("%d curves with %d labels, want 8", len(curves), len(svg.all("polyline", "leader")))
	}
	styles := map[string]bool{}
	for _, c := range curves {
		style := c.attrs["class"] + " " + c.attrs["stroke-dasharray"]
		if styles[style] {
			t.Errorf("two curves look the same: %s", style)
		}
		styles[style] = true
		lastX, lastY := math.Inf(-1), math.Inf(1)
		points := strings.Fields(c.attrs["points"])
		if len(points) != 61 {
			t.Errorf("%d points, want 61", len(points))
		}
		for _, p := range points {
			x, y := pair(t, p)
			if x < lastX || y > lastY {
				t.Errorf("a curve goes back or down at %s", p)
			}
			lastX, lastY = x, y
		}
	}
	for _, tick := range []string{"50 %", "90 %", "99 %", "99.9 %", "99.99 %", "max"} {
		if !hasText(svg, tick) {
			t.Errorf("no tick at %s", tick)
		}
	}
	// Each further nine has the same room.
	at := map[string]float64{}
	for _, e := range svg.all("text") {
		at[e.text()] = attr(t, e, "x")
	}
	if a, b := at["99 %"]-at["90 %"], at["99.9 %"]-at["99 %"]; a <= 0 || math.Abs(a-b) > 0.1 {
		t.Errorf("90 to 99 takes %v, 99 to 99.9 takes %v", a, b)
	}
}

func TestLatencyCurveWithoutPoints(t *testing.T) {
	t.Parallel()
	f := sampleRun()
	for i := range f.Results {
		if l := f.Results[i].Latency; l != nil {
			l.Curve = nil
		}
	}
	for _, c := range drawn(t, groupNamed(t, f, "conn-1x64"), "latency").all("polyline", "curve") {
		if n := len(strings.Fields(c.attrs["points"])); n != 4 {
			t.Errorf("%d points, want the four percentiles", n)
		}
	}
}

func TestLabelsKeepApart(t *testing.T) {
	t.Parallel()
	for _, wanted := range [][]float64{{}, {5}, {50, 50, 50}, {99, 98, 97, 1}, {0, 0, 100, 100}, {40, 45, 52}} {
		placed := spreadLabels(wanted, 0, 100, 10)
		if len(placed) != len(wanted) {
			t.Fatalf("%v became %v", wanted, placed)
		}
		for i, p := range placed {
			if p < 0 || p > 100 {
				t.Errorf("%v: label %d at %v is outside", wanted, i, p)
			}
			for j, q := range placed[:i] {
				if math.Abs(p-q) < 10-1e-9 {
					t.Errorf("%v: labels %d and %d at %v and %v", wanted, j, i, q, p)
				}
				if (wanted[i]-wanted[j])*(p-q) < 0 {
					t.Errorf("%v: labels %d and %d changed places", wanted, j, i)
				}
			}
		}
	}
}

func TestTicks(t *testing.T) {
	t.Parallel()
	for _, greatest := range []float64{1, 2.4, 9.99, 45, 4000, 0.003, 1e9, 5e-324, 1e308} {
		ticks := niceTicks(greatest, 5)
		if ticks[0] != 0 || len(ticks) > 12 {
			t.Errorf("niceTicks(%v) = %v", greatest, ticks)
		}
		if greatest > 1e-300 && (len(ticks) < 3 || ticks[len(ticks)-1] > greatest*1.001) {
			t.Errorf("niceTicks(%v) = %v", greatest, ticks)
		}
	}
	for _, bad := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		if ticks := niceTicks(bad, 5); len(ticks) != 1 {
			t.Errorf("niceTicks(%v) = %v", bad, ticks)
		}
	}
	for _, tc := range [][2]float64{{60, 3000}, {60, 90}, {0.01, 1e9}} {
		ticks := logTicks(tc[0], tc[1])
		if len(ticks) < 2 || len(ticks) > 12 {
			t.Errorf("logTicks(%v) = %v", tc, ticks)
		}
		for _, tick := range ticks {
			if tick < tc[0] || tick > tc[1] {
				t.Errorf("logTicks(%v) = %v", tc, ticks)
			}
		}
	}
}

// TestColoursStandOut computes the contrast (WCAG 2) of all colours with both
// surfaces.
func TestColoursStandOut(t *testing.T) {
	t.Parallel()
	light, dark, ok := strings.Cut(chartStyle, "@media (prefers-color-scheme:dark)")
	if !ok {
		t.Fatal("no colours for the dark")
	}
	dark, _, _ = strings.Cut(dark, "}}")
	for mode, css := range map[string]string{"light": light, "dark": dark} {
		colours := map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z]+):(#[0-9a-f]{6})`).FindAllStringSubmatch(css, -1) {
			colours[m[1]] = m[2]
		}
		if len(colours) != 11 {
			t.Errorf("%s: %d colours, want 11", mode, len(colours))
		}
		for name, colour := range colours {
			want := 3.0
			switch name {
			case "surface", "grid": // the grid is to stay behind
				continue
			case "ink", "muted":
				want = 4.5
			}
			if got := contrast(t, colour, colours["surface"]); got < want {
				t.Errorf("%s: %s has a contrast of %.1f, want %v", mode, name, got, want)
			}
		}
	}
}

func groupNamed(t *testing.T, f *File, slug string) *reportGroup {
	t.Helper()
	for _, g := range groupsOf(f) {
		if g.slug == slug {
			return &g
		}
	}
	t.Fatalf("no group %s", slug)
	return nil
}

func drawn(t *testing.T, g *reportGroup, kind string) *element {
	t.Helper()
	for _, c := range g.charts() {
		if c.kind != kind {
			continue
		}
		root, err := parseXML([]byte(chartSVG(c, "c", g.heading(c), true)))
		if err != nil {
			t.Fatal(err)
		}
		return root
	}
	t.Fatalf("%s has no chart %s", g.slug, kind)
	return nil
}

// barsOf returns the bars without the samples of the legend.
func barsOf(svg *element) []*element {
	var bars []*element
	for _, b := range svg.all("rect", "bar") {
		if !hasClasses(b, []string{"swatch"}) {
			bars = append(bars, b)
		}
	}
	return bars
}

func hasText(svg *element, want string) bool {
	for _, e := range svg.all("text") {
		if e.text() == want {
			return true
		}
	}
	return false
}

func attr(t *testing.T, e *element, name string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(e.attrs[name], 64)
	if err != nil {
		t.Fatalf("%s of %s: %v", name, e.name, err)
	}
	return v
}

// ends returns where a whisker begins and ends.
func ends(t *testing.T, e *element) (low, high float64) {
	t.Helper()
	m := regexp.MustCompile(`^M(\S+) .*H(\S+)M`).FindStringSubmatch(e.attrs["d"])
	if m == nil {
		t.Fatalf("no whisker: %q", e.attrs["d"])
	}
	low, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	high, err = strconv.ParseFloat(m[2], 64)
	if err != nil {
		t.Fatal(err)
	}
	return low, high
}

func pair(t *testing.T, s string) (x, y float64) {
	t.Helper()
	a, b, _ := strings.Cut(s, ",")
	x, err := strconv.ParseFloat(a, 64)
	if err != nil {
		t.Fatal(err)
	}
	y, err = strconv.ParseFloat(b, 64)
	if err != nil {
		t.Fatal(err)
	}
	return x, y
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	la, lb := luminance(t, a), luminance(t, b)
	return (math.Max(la, lb) + 0.05) / (math.Min(la, lb) + 0.05)
}

func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	v, err := strconv.ParseUint(strings.TrimPrefix(colour, "#"), 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	linear := func(c uint64) float64 {
		f := float64(c&0xff) / 255
		if f <= 0.04045 {
			return f / 12.92
		}
		return math.Pow((f+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(v>>16) + 0.7152*linear(v>>8) + 0.0722*linear(v)
}
