package netbench

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTable(t *testing.T) {
	t.Parallel()
	f := sampleRun()
	text := table(t, f)

	bulk := section(t, text, "bulk: 1 stream, 128 KiB writes, 5 rounds")
	r := find(t, f, WorkloadBulk, PathSplice, 1)
	line := lineWith(t, bulk, "  splice ")
	for _, want := range []string{
		fmt.Sprintf("%.3f [%.3f–%.3f]", r.Throughput.Median/1e9, r.Throughput.Min/1e9, r.Throughput.Max/1e9),
		fmt.Sprintf("%.3f [%.3f–%.3f]", r.RatioToDirect.Median, r.RatioToDirect.Min, r.RatioToDirect.Max),
		fmt.Sprintf("%.3f [%.3f–%.3f]", r.RatioToBestPeer.Median, r.RatioToBestPeer.Min, r.RatioToBestPeer.Max),
		fmt.Sprintf("%.3f [%.3f–%.3f]", r.ProxyCPU.Median, r.ProxyCPU.Min, r.ProxyCPU.Max),
		fmt.Sprintf("%.3f [%.3f–%.3f]", r.MachineCPU.Median, r.MachineCPU.Min, r.MachineCPU.Max),
	} {
		if !strings.Contains(line, want) {
			t.Errorf("%q lacks %q", line, want)
		}
	}
	for _, want := range []string{
		"nginx             missing: nginx: not found in $PATH",
		"socat             failed: round 1: byte 4096 differs",
		"best peer: haproxy-splice",
		"haproxy (3 of 5)  0.",
		"haproxy FAILED: rounds 2 and 4: read: connection reset by peer (the figures are of the other rounds)",
	} {
		if !strings.Contains(bulk, want) {
			t.Errorf("bulk lacks %q:\n%s", want, bulk)
		}
	}
	for heading, want := range map[string]string{
		"rr: 1 stream, 64 B messages":   "latency mode, mixed: splice, haproxy",
		"conn: 1 stream, 64 B messages": "connections",
		"idle: 1000 pairs":              "kernel/pair",
		// What was run, word for word.
		"paths":           "  haproxy: haproxy 1.2\n    haproxy -db -f 'a file.cfg'\n    | global\n    |   maxconn 20000\n    | ```\n    | <defaults> & more\n",
		"mixed: 1 stream": "busy loss",
	} {
		if s := section(t, text, heading); !strings.Contains(s, want) {
			t.Errorf("%s lacks %q:\n%s", heading, want, s)
		}
	}
	if !strings.Contains(text, "the hypervisor stole 3 %") {
		t.Error("the notes are missing")
	}
}

func TestTableIsAligned(t *testing.T) {
	t.Parallel()
	lines := strings.Split(section(t, table(t, sampleRun()), "bulk: 8 streams"), "\n")
	// The units stand below their heads, and each throughput above the next.
	head, units := lines[1], lines[2]
	for what, unit := range map[string]string{"throughput": "GB/s", "to direct": "×", "machine CPU": "s/GB"} {
		at := strings.Index(head, what) // the head has one byte a rune
		if below := []rune(units); at < 0 || len(below) < at || !strings.HasPrefix(string(below[at:]), unit) {
			t.Errorf("%q is not below %q:\n%s\n%s", unit, what, head, units)
		}
	}
	first := -1
	for _, line := range lines[3:] {
		bracket := strings.Index(line, " [")
		if bracket < 0 {
			continue
		}
		at := utf8.RuneCountInString(line[:bracket])
		if first < 0 {
			first = at
		}
		if at != first {
			t.Errorf("not aligned with the line above: %q", line)
		}
	}
	if first < 0 {
		t.Error("no range in the table")
	}
}

func TestTableOfPathsThatNeverKnewTheirSize(t *testing.T) {
	t.Parallel()
	f := sampleRun()
	for i := range f.Results {
		if f.Results[i].Path == PathNginx {
			f.Results[i].Size, f.Results[i].Streams = 0, 0
		}
	}
	f.Results = removed(f.Results, WorkloadRR, PathSocat)
	text := table(t, f)
	if n, want := strings.Count(text, "path "), len(groupsOf(sampleRun())); n != want {
		t.Errorf("%d tables, want %d", n, want)
	}
	if n, want := strings.Count(text, "nginx             missing: nginx"), len(groupsOf(sampleRun())); n != want {
		t.Errorf("nginx is missing in %d tables, want %d:\n%s", n, want, text)
	}
	if rr := section(t, text, "rr: 1 stream"); !strings.Contains(rr, "socat             missing: not in the results") {
		t.Errorf("a path that was asked for is left out in silence:\n%s", rr)
	}
}

func TestTableOfNothing(t *testing.T) {
	t.Parallel()
	if text := table(t, &File{Schema: SchemaVersion}); !strings.Contains(text, "no results") {
		t.Errorf("an empty run: %q", text)
	}
}

func TestWritersReportErrors(t *testing.T) {
	t.Parallel()
	f := sampleRun()
	report, _ := Diff(f, f, 0.05)
	for name, err := range map[string]error{
		"table":     WriteTable(brokenWriter{}, f),
		"html":      WriteHTML(brokenWriter{}, f),
		"markdown":  WriteMarkdown(brokenWriter{}, f),
		"benchstat": WriteBenchstat(brokenWriter{}, f),
		"diff":      report.Write(brokenWriter{}),
	} {
		if !errors.Is(err, errBroken) {
			t.Errorf("%s: %v, want the error of the writer", name, err)
		}
	}
}

func TestScales(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		quantity quantity
		unit     string
		samples  []float64
		want     string
	}{
		{rateQuantity, "", []float64{2.4e9, 2.5e9, 2.6e9}, "2.50 [2.40–2.60] GB/s"},
		{rateQuantity, "", []float64{87.25e6}, "87.2 MB/s"},
		{rateQuantity, "", []float64{12.5}, "12.5 B/s"},
		{byteQuantity, "", []float64{2048, 3072, 4096}, "3 [2–4] KiB"},
		{byteQuantity, "", []float64{0, 0, 0}, "0 [0–0] B"},
		{microsQuantity, "", []float64{70.25, 71.5, 90}, "71.5 [70.2–90.0] µs"},
		{microsQuantity, "", []float64{250_500}, "250 ms"},
		{microsQuantity, "", []float64{12_345_678}, "12.3 s"},
		{shareQuantity, "", []float64{0.0125}, "1.25 %"},
		{plainQuantity, "s/GB", []float64{0.5, 0.55, 0.61}, "0.550 [0.500–0.610] s/GB"},
		{plainQuantity, "/pair", []float64{2, 2, 2}, "2 [2–2] /pair"},
		{plainQuantity, "/s", []float64{28123.4}, "28123 /s"},
		{plainQuantity, "s/GB", []float64{0.00012}, "0.00012 s/GB"},
	} {
		fig := NewFigure(tc.samples)
		s := scaleOf(tc.quantity, tc.unit, []*Figure{fig})
		if got := s.cell(fig).String() + " " + s.unit; got != tc.want {
			t.Errorf("%v is written %q, want %q", tc.samples, got, tc.want)
		}
	}
}

func table(t *testing.T, f *File) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteTable(&b, f); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// section returns the part of a table's output from a heading to the next blank
// line.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	at := strings.Index(text, "\n"+heading)
	if at < 0 {
		t.Fatalf("no heading %q in:\n%s", heading, text)
	}
	part, _, _ := strings.Cut(text[at+1:], "\n\n")
	return part
}

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }
