package netbench

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestMarkdownAndItsCharts(t *testing.T) {
	t.Parallel()
	f := sampleRun()
	var b bytes.Buffer
	if err := WriteMarkdown(&b, f); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	docs := t.TempDir()
	if err := WriteSVGs(filepath.Join(docs, SVGDir), f); err != nil {
		t.Fatal(err)
	}

	linked := map[string]bool{}
	for _, m := range regexp.MustCompile(`!\[[^\]]+\]\(([^)]+)\)`).FindAllStringSubmatch(page, -1) {
		linked[m[1]] = true
		data, err := os.ReadFile(filepath.Join(docs, filepath.FromSlash(m[1])))
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := parseXML(data); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
	}
	files, err := filepath.Glob(filepath.Join(docs, SVGDir, "*"))
	if err != nil || len(files) == 0 || len(files) != len(linked) {
		t.Errorf("%d files for %d links: %v", len(files), len(linked), err)
	}

	r := find(t, f, WorkloadConn, PathCopy, 1)
	if want := columnOf("connections_per_s").scale([]*Result{r}).cell(r.Connections).String(); !strings.Contains(page, "| copy | "+want+" |") {
		t.Errorf("no cell %q for the connections of copy", want)
	}
	for _, want := range []string{
		"*missing: nginx: not found in $PATH*",
		"*failed: round 1: byte 4096 differs",
		"````\nglobal\n  maxconn 20000\n```\n<defaults> & more\n````",
		"haproxy -db -f 'a file.cfg'",
		`my\<"proxy"\>&`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, f.Machine.Hostname) {
		t.Error("the page names the machine")
	}
	tableRowsAreWhole(t, page)
}

// tableRowsAreWhole checks that each row of a table has as many cells as its
// head.
func tableRowsAreWhole(t *testing.T, page string) {
	t.Helper()
	bar := regexp.MustCompile(`(^|[^\\])\|`)
	want := 0
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "|") {
			want = 0
			continue
		}
		n := len(bar.FindAllString(strings.ReplaceAll(line, "||", "| |"), -1))
		if want == 0 {
			want = n
		}
		if n != want {
			t.Errorf("%d bars instead of %d in %q", n, want, line)
		}
	}
}

func TestSVGsReplaceThoseOfAnEarlierRun(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "on the way")
	f := sampleRun()
	if err := WriteSVGs(dir, f); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "drawn-by-hand.svg")
	if err := os.WriteFile(foreign, []byte("<svg/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	var bulk []Result
	for _, r := range f.Results {
		if r.Workload == WorkloadBulk && r.Streams == 1 {
			bulk = append(bulk, r)
		}
	}
	f.Results = bulk
	if err := WriteSVGs(dir, f); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), "bulk-1x131072-cpu.svg bulk-1x131072-throughput.svg drawn-by-hand.svg"; got != want {
		t.Errorf("left: %s, want %s", got, want)
	}
}

func TestSVGsReportErrors(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteSVGs(file, sampleRun()); err == nil || !strings.HasPrefix(err.Error(), "write charts: ") {
		t.Errorf("a file instead of a directory: %v", err)
	}
}
