package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spliced-io/spliced/internal/netbench"
)

// progressLine says on standard error where a run is: one line that changes on
// a terminal, and elsewhere one for each measurement.
type progressLine struct {
	w        io.Writer
	terminal bool
	width    int // of what stands on the terminal now
}

func newProgressLine(w io.Writer) *progressLine {
	p := &progressLine{w: w}
	if file, ok := w.(*os.File); ok {
		info, err := file.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progressLine) show(now netbench.Progress) {
	if !p.terminal && !now.Finished {
		return
	}
	place := fmt.Sprintf("[%d/%d] %s %s", now.Done, now.Total, now.Workload, now.Path)
	if now.Streams > 1 {
		place += fmt.Sprintf(" ×%d", now.Streams)
	}
	what := fmt.Sprintf("round %d of %d, %s", now.Round, now.Rounds, rateText(now))
	if now.Extra != "" {
		what = now.Extra
	}
	text := fmt.Sprintf("%s, %s, %s left", place, what, now.Left.Round(time.Second))
	if now.Err != nil {
		// An error stays on the screen.
		p.clear()
		fmt.Fprintf(p.w, "%s, round %d: %v\n", place, now.Round, now.Err)
		return
	}
	if !p.terminal {
		fmt.Fprintln(p.w, text)
		return
	}
	fmt.Fprintf(p.w, "\r%s%s", text, strings.Repeat(" ", max(p.width-len(text), 0)))
	p.width = len(text)
}

func (p *progressLine) clear() {
	if p.width > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.width))
		p.width = 0
	}
}

func rateText(now netbench.Progress) string {
	switch {
	case now.Rate <= 0:
		return "…"
	case now.RateUnit == "B/s":
		return fmt.Sprintf("%.2f GB/s", now.Rate/1e9)
	default:
		return fmt.Sprintf("%.0f %s", now.Rate, now.RateUnit)
	}
}
