package netbench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet/browser"
)

// seenChart is what the browser tells about a drawing.
type seenChart struct {
	ID                  string
	Left, Width, Height float64
	Visible             bool
	Bars, Curves        int
	Thin                int      // bars without any extent
	Pale                int      // bars and curves that can't be told from the page
	Cut                 []string // texts that reach out of the drawing
	Overlap             []string // texts upon each other
}

type seenPage struct {
	Scheme     string
	Background string
	Ink        string
	Width      float64 // of the window
	Scroll     float64 // of the whole page
	Charts     []seenChart
}

// lookAtPage is run by the browser. It knows what is really painted: fonts,
// sizes and colours.
const lookAtPage = `(() => {
  const rgb = c => (c.match(/[\d.]+/g) || []).slice(0, 3).map(Number);
  const lum = c => { const l = rgb(c).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
  const contrast = (a, b) => { a = lum(a); b = lum(b); return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
  const body = getComputedStyle(document.body);
  const charts = [...document.querySelectorAll('svg.chart')].map(svg => {
    const box = svg.getBoundingClientRect();
    const bars = [...svg.querySelectorAll('rect.bar:not(.swatch)')];
    const curves = [...svg.querySelectorAll('polyline.curve')];
    const texts = [...svg.querySelectorAll('text')];
    const boxes = texts.map(t => t.getBoundingClientRect());
    const overlap = [];
    for (let i = 0; i < texts.length; i++) for (let j = 0; j < i; j++) {
      const a = boxes[i], b = boxes[j];
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Lines of text may touch: a third of a line is too much.
      if (x > 1 && y > Math.min(a.height, b.height) / 3) overlap.push(texts[j].textContent + ' / ' + texts[i].textContent);
    }
    const paint = e => { const s = getComputedStyle(e); return s.fill === 'none' ? s.stroke : s.fill; };
    return {
      ID: svg.getAttribute('aria-labelledby'), Left: box.left, Width: box.width, Height: box.height,
      Visible: svg.checkVisibility({opacityProperty: true, visibilityProperty: true}),
      Bars: bars.length, Curves: curves.length,
      Thin: bars.filter(b => { const r = b.getBoundingClientRect(); return r.width < 1 || r.height < 1; }).length,
      Pale: [...bars, ...curves].filter(e => contrast(paint(e), body.backgroundColor) < 3).length,
      Cut: texts.filter((t, i) => boxes[i].left < box.left - 1 || boxes[i].right > box.right + 1 ||
        boxes[i].top < box.top - 1 || boxes[i].bottom > box.bottom + 1).map(t => t.textContent),
      Overlap: overlap,
    };
  });
  return {
    Scheme: matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light',
    Background: body.backgroundColor, Ink: body.color, Width: innerWidth, Scroll: document.documentElement.scrollWidth, Charts: charts,
  };
})()`

func TestBrowserShowsAllCharts(t *testing.T) {
	t.Parallel()
	b := browser.Start(t)
	f := sampleRun()
	var page bytes.Buffer
	if err := WriteHTML(&page, f); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(name, page.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	bars, curves := map[string]int{}, map[string]int{}
	for _, g := range groupsOf(f) {
		for _, c := range g.charts() {
			id := g.slug + "-" + c.kind
			svg := drawn(t, &g, c.kind)
			bars[id], curves[id] = len(barsOf(svg)), len(svg.all("polyline", "curve"))
		}
	}

	grounds := map[string]string{}
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int{1400, 420} {
			seen := look(t, b, "file://"+name, scheme, width)
			where := fmt.Sprintf("%s, %d wide", scheme, width)
			grounds[scheme] = seen.Background
			if seen.Scheme != scheme || seen.Ink == seen.Background {
				t.Errorf("%s: the page is %s, %s on %s", where, seen.Scheme, seen.Ink, seen.Background)
			}
			if seen.Scroll > seen.Width {
				t.Errorf("%s: the page is %v wide", where, seen.Scroll)
			}
			if len(seen.Charts) != len(bars) {
				t.Errorf("%s: %d charts, want %d", where, len(seen.Charts), len(bars))
			}
			for _, c := range seen.Charts {
				id := strings.TrimSuffix(strings.Fields(c.ID)[0], "-t")
				if !c.Visible || c.Width < 300 || c.Height < 80 || c.Left < 0 || c.Left+c.Width > float64(width) {
					t.Errorf("%s: %s can't be seen: %+v", where, id, c)
				}
				if c.Bars != bars[id] || c.Curves != curves[id] || c.Bars+c.Curves < 7 {
					t.Errorf("%s: %s shows %d bars and %d curves, want %d and %d", where, id, c.Bars, c.Curves, bars[id], curves[id])
				}
				// A path without pipes has bars of no length, but no chart shows pipes.
				if c.Thin > 0 || c.Pale > 0 {
					t.Errorf("%s: %s has %d bars without extent and %d pale ones", where, id, c.Thin, c.Pale)
				}
				if len(c.Cut) > 0 || len(c.Overlap) > 0 {
					t.Errorf("%s: %s: text cut off %q, overlapping %q", where, id, c.Cut, c.Overlap)
				}
			}
		}
	}
	if grounds["light"] == grounds["dark"] {
		t.Errorf("light and dark have the same background, %s", grounds["light"])
	}
	if !slices.Equal(b.Requested, slices.Repeat([]string{"file://" + name}, 4)) {
		t.Errorf("the page asked for more than itself: %q", b.Requested)
	}
	if len(b.Complaints) > 0 {
		t.Errorf("the browser complains: %q", b.Complaints)
	}
}

// look opens the page in a window of that width and returns what it shows.
func look(t *testing.T, b *browser.Browser, url, scheme string, width int) (seen seenPage) {
	t.Helper()
	b.Window(scheme, width, 900)
	b.Open(url)
	b.Eval(lookAtPage, &seen)
	return seen
}
