package netbench

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// Write writes the report as text, one line a figure.
func (report *Report) Write(w io.Writer) error {
	var b strings.Builder
	for _, line := range report.Warnings {
		fmt.Fprintf(&b, "note: %s\n", line)
	}
	if len(report.Warnings) > 0 {
		b.WriteByte('\n')
	}
	t := textTable{texts: 2}
	counts := map[Verdict]int{}
	last := ""
	flush := func() {
		if len(t.rows) > 0 {
			t.write(&b)
			b.WriteByte('\n')
		}
		t = textTable{texts: 2}
	}
	for _, row := range report.Rows {
		counts[row.Verdict]++
		g := reportGroup{Workload: row.Workload, Streams: row.Streams, Size: row.Size}
		heading := row.heading
		if heading == "" {
			heading = printable(row.Workload) + ": " + g.Detail()
		}
		if heading != last {
			flush()
			last = heading
			b.WriteString(heading + "\n")
			t.head("path", "figure", "old", "new", "delta")
		}
		s := scaleOf(row.column.quantity, row.column.unit, []*Figure{row.Old, row.New})
		t.row(printable(row.Path), row.column.headWith(s),
			s.median(row.Old), bracketed(s.spread(row.Old)), s.median(row.New), bracketed(s.spread(row.New)),
			row.delta(), row.verdict())
	}
	flush()
	for _, line := range report.Missing {
		b.WriteString(line + "\n")
	}
	fmt.Fprintf(&b, "%s compared at a threshold of %s%%: %s, %d undecided, %d better, %d within the spread\n",
		counted(len(report.Rows), "figure"), number(report.Threshold*100),
		counted(report.Regressions, "regression"), report.Undecided, counts[Better], counts[Noise])
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write comparison: %w", err)
	}
	return nil
}

// verdict has the p-value with it, as benchstat prints it.
func (row *DiffRow) verdict() string {
	text := row.Verdict.String()
	if row.Verdict == Undecided && row.improved() {
		text = "better, undecided"
	}
	if text != "" && !math.IsNaN(row.P) {
		text += fmt.Sprintf(" (p=%.3f, n=%d+%d)", row.P, len(row.Old.Samples), len(row.New.Samples))
	}
	return text
}

func (row *DiffRow) delta() string {
	switch {
	case math.IsInf(row.Delta, 0):
		return "from 0"
	case row.column.quantity == shareQuantity:
		return fmt.Sprintf("%+.1f points", row.Delta*100)
	default:
		return fmt.Sprintf("%+.1f%%", row.Delta*100)
	}
}

func bracketed(s string) string {
	if s == "" {
		return ""
	}
	return "[" + s + "]"
}
