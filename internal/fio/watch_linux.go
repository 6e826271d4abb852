package fio

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spliced-io/spliced/internal/fio/report"
	"github.com/spliced-io/spliced/internal/fio/run"
	"github.com/spliced-io/spliced/internal/fio/stat"
)

// A watcher looks at a run: it shows progress and collects intervals.
type watcher struct {
	c    *command
	run  *run.Run
	err  io.Writer // progress
	eta  bool
	out  io.Writer // lines of ndjson and of the normal format; nil: none
	file *os.File  // --intervals

	quit chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex // guards what is below

	list   []report.Interval
	last   run.Figures // at the end of the last interval
	lastAt time.Duration
	failed error
	shown  bool
}

// mostIntervals bounds the memory of a long run; above it neighbours become
// one.
const mostIntervals = 4096

func (c *command) watch(std Streams, r *run.Run, out io.Writer) (*watcher, error) {
	w := &watcher{c: c, run: r, err: std.Err, quit: make(chan struct{})}
	w.eta = c.eta == "always" || c.eta == "auto" && std.Terminal
	every := c.status
	lines := slices.Contains(c.formats, "ndjson")
	if every == 0 && (lines || c.intervals != "" || c.html != "") {
		every = time.Second
	}
	if c.status > 0 && slices.Contains(c.formats, "terse") {
		return nil, fmt.Errorf("option --status-interval: not with the terse format")
	}
	if lines || c.status > 0 && slices.Contains(c.formats, "normal") {
		w.out = out
	}
	if c.intervals != "" {
		f, err := os.Create(c.intervals)
		if err != nil {
			return nil, fmt.Errorf("option --intervals: %w", err)
		}
		w.file = f
	}
	if every > 0 {
		w.ticks(every, w.interval)
	}
	if w.eta && c.etaEvery > 0 {
		w.ticks(c.etaEvery, w.progress)
	}
	return w, nil
}

func (w *watcher) ticks(every time.Duration, fn func()) {
	w.wg.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-w.quit:
				return
			case <-t.C:
				w.mu.Lock()
				fn()
				w.mu.Unlock()
			}
		}
	})
}

// end stops, after a last interval for what is left.
func (w *watcher) end() error {
	close(w.quit)
	w.wg.Wait()
	if w.out != nil || w.file != nil || len(w.list) > 0 {
		w.interval()
	}
	if w.shown {
		fmt.Fprintln(w.err)
	}
	if w.file != nil {
		if err := w.file.Close(); w.failed == nil {
			w.failed = err
		}
	}
	if w.failed != nil {
		return fmt.Errorf("write an interval: %w", w.failed)
	}
	return nil
}

func (w *watcher) interval() {
	s := w.run.Status(true)
	v := report.Interval{Begin: w.lastAt, End: s.Elapsed, Running: s.Running, States: s.States}
	v.Figures.LatMax = s.Total.LatMax
	moved := false
	for dir := range s.Total.Bytes {
		v.Figures.Bytes[dir] = s.Total.Bytes[dir] - w.last.Bytes[dir]
		v.Figures.IOs[dir] = s.Total.IOs[dir] - w.last.IOs[dir]
		v.Figures.LatSum[dir] = s.Total.LatSum[dir] - w.last.LatSum[dir]
		moved = moved || v.Figures.IOs[dir] > 0
	}
	if s.Elapsed == 0 || s.Running == 0 && !moved {
		return // files are being laid out, or everything has ended
	}
	w.last, w.lastAt = s.Total, s.Elapsed
	w.list = append(w.list, v)
	if len(w.list) > mostIntervals {
		w.list = halve(w.list)
	}
	note := func(err error) {
		if w.failed == nil {
			w.failed = err
		}
	}
	if w.file != nil {
		note(v.Line(w.file))
	}
	switch {
	case w.out == nil:
	case slices.Contains(w.c.formats, "ndjson"):
		note(v.Line(w.out))
	default:
		_, err := fmt.Fprintln(w.out, text(v))
		note(err)
	}
}

func halve(list []report.Interval) []report.Interval {
	half := list[:0]
	for i := 0; i+1 < len(list); i += 2 {
		a, b := list[i], list[i+1]
		for dir := range a.Figures.Bytes {
			a.Figures.Bytes[dir] += b.Figures.Bytes[dir]
			a.Figures.IOs[dir] += b.Figures.IOs[dir]
			a.Figures.LatSum[dir] += b.Figures.LatSum[dir]
			a.Figures.LatMax[dir] = max(a.Figures.LatMax[dir], b.Figures.LatMax[dir])
		}
		a.End = b.End
		half = append(half, a)
	}
	return half
}

func text(v report.Interval) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%8.1fs:", v.End.Seconds())
	seconds := max((v.End - v.Begin).Seconds(), 1e-9)
	for dir := range stat.Directions {
		if n := v.Figures.IOs[dir]; n > 0 {
			fmt.Fprintf(&b, " %s %.1fMiB/s %.0f IOPS mean %v max %v", stat.Name(dir),
				float64(v.Figures.Bytes[dir])/seconds/(1<<20), float64(n)/seconds,
				time.Duration(v.Figures.LatSum[dir]/n), time.Duration(v.Figures.LatMax[dir]))
		}
	}
	return b.String()
}

// progress writes fio's status line over the one before.
func (w *watcher) progress() {
	s := w.run.Status(false)
	if s.Elapsed == 0 {
		return
	}
	line := w.line(s)
	end := ""
	if n := w.c.etaNewline; n > 0 && s.Elapsed.Truncate(n) != (s.Elapsed-w.c.etaEvery).Truncate(n) {
		end = "\n"
	}
	fmt.Fprintf(w.err, "\r%-78s%s", line, end)
	w.shown = end == ""
}

func (w *watcher) line(s run.Status) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Jobs: %d (f=%d): [%s][%.1f%%]", s.Running, s.Running, runs(s.States), s.Done*100)
	seconds := max(s.Elapsed.Seconds(), 1e-9)
	if len(w.list) == 0 {
		// No intervals are taken: the mean since the start.
		w.rates(&b, s.Total, seconds)
	} else {
		v := w.list[len(w.list)-1]
		w.rates(&b, v.Figures, max((v.End-v.Begin).Seconds(), 1e-9))
	}
	b.WriteString("[eta " + clock(s.Left) + "]")
	return b.String()
}

func (w *watcher) rates(b *strings.Builder, f run.Figures, seconds float64) {
	var bw, iops []string
	for dir, letter := range "rwt" {
		if f.IOs[dir] == 0 {
			continue
		}
		bw = append(bw, fmt.Sprintf("%c=%.1fMiB/s", letter, float64(f.Bytes[dir])/seconds/(1<<20)))
		iops = append(iops, fmt.Sprintf("%c=%.0f", letter, float64(f.IOs[dir])/seconds))
	}
	if len(bw) > 0 {
		fmt.Fprintf(b, "[%s][%s IOPS]", strings.Join(bw, ","), strings.Join(iops, ","))
	}
}

// runs shortens "rrr_" to "r(3),_(1)".
func runs(states string) string {
	var parts []string
	for i := 0; i < len(states); {
		j := i
		for j < len(states) && states[j] == states[i] {
			j++
		}
		parts = append(parts, fmt.Sprintf("%c(%d)", states[i], j-i))
		i = j
	}
	return strings.Join(parts, ",")
}

func clock(d time.Duration) string {
	if d < 0 {
		return "unknown"
	}
	s := int64((d + time.Second - 1) / time.Second)
	text := fmt.Sprintf("%02dm:%02ds", s/60%60, s%60)
	if s >= 3600 {
		text = fmt.Sprintf("%02dh:", s/3600%24) + text
	}
	if s >= 86400 {
		text = fmt.Sprintf("%dd:", s/86400) + text
	}
	return text
}
