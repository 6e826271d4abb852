package netbench

import (
	"bytes"
	"strings"
	"testing"
)

func TestPageHasAllChartsAndTables(t *testing.T) {
	t.Parallel()
	f := sampleRun()
	page, _ := parsedPage(t, f)

	charts := 0
	for _, g := range groupsOf(f) {
		charts += len(g.charts())
	}
	figures := page.all("figure")
	if len(figures) != charts || charts != 18 {
		t.Errorf("%d figures for %d charts, want 18", len(figures), charts)
	}
	ids := map[string]int{}
	for _, e := range page.all("") {
		if id := e.attrs["id"]; id != "" {
			ids[id]++
		}
	}
	for id, n := range ids {
		if n > 1 {
			t.Errorf("the id %s is used %d times", id, n)
		}
	}
	for _, fig := range figures {
		svgs, tables := fig.all("svg"), fig.all("table")
		if len(svgs) != 1 || len(tables) != 1 {
			t.Fatalf("a figure with %d drawings and %d tables", len(svgs), len(tables))
		}
		svg := svgs[0]
		if svg.attrs["role"] != "img" || len(svg.all("title")) == 0 || len(svg.all("desc")) != 1 {
			t.Error("a drawing without role, title or description")
		}
		for _, id := range strings.Fields(svg.attrs["aria-labelledby"]) {
			if ids[id] != 1 {
				t.Errorf("the drawing is labelled by %s, which is not there", id)
			}
		}
		if len(svg.all("style")) != 0 {
			t.Error("a drawing in the page brings its own style")
		}
		// Ten paths, whatever became of them.
		if rows := tables[0].all("tbody")[0].all("tr"); len(rows) != 10 {
			t.Errorf("a table with %d rows, want 10", len(rows))
		}
	}
	for _, a := range page.all("a") {
		if target, ok := strings.CutPrefix(a.attrs["href"], "#"); !ok || ids[target] != 1 {
			t.Errorf("a link to %q, which is not in the page", a.attrs["href"])
		}
	}
}

func TestPageSaysWhatWasRun(t *testing.T) {
	t.Parallel()
	f := sampleRun()
	page, _ := parsedPage(t, f)
	all := page.text()
	for _, want := range []string{
		"testhost", "linux 6.18.0 amd64", "Some CPU @ 2.0GHz", "Mitigation: IBRS",
		"haproxy -db -f 'a file.cfg'",
		"maxconn 20000\n```\n<defaults> & more",
		"nginx: not found in $PATH",
		"failed: round 1: byte 4096 differs: got 0x00, want 0x17",
		"failed, but for 3 of 5 rounds",
		"haproxy FAILED: rounds 2 and 4: read: connection reset by peer",
		"the hypervisor stole 3 % of the processor time",
		`my<"proxy">&`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	r := find(t, f, WorkloadBulk, PathGoCopy, 8)
	section := byID(t, page, "bulk-8x131072").text()
	g := groupNamed(t, f, "bulk-8x131072")
	for _, c := range g.filled(false) {
		want := c.scale(g.Rows).cell(c.figure(r))
		if c.figure(r) != nil && (!strings.Contains(section, want.Median) || !strings.Contains(section, want.Spread)) {
			t.Errorf("%s of gocopy, %v, is not in its section", c.key, want)
		}
	}
}

func TestPageNeedsNothingElse(t *testing.T) {
	t.Parallel()
	page, raw := parsedPage(t, sampleRun())
	for _, name := range []string{"script", "link", "img", "iframe", "object", "embed", "use", "image"} {
		if n := len(page.all(name)); n != 0 {
			t.Errorf("%d elements %s", n, name)
		}
	}
	for _, e := range page.all("") {
		for name, value := range e.attrs {
			if name == "src" || name == "srcset" || strings.HasPrefix(name, "on") {
				t.Errorf("%s has %s=%q", e.name, name, value)
			}
		}
	}
	for _, style := range page.all("style") {
		if strings.Contains(style.text(), "url(") || strings.Contains(style.text(), "@import") {
			t.Error("the style loads something")
		}
	}
	if rest := strings.ReplaceAll(raw, "http://www.w3.org/2000/svg", ""); strings.Contains(rest, "://") {
		t.Error("the page names an address")
	}
}

func TestPageOfAHostileFile(t *testing.T) {
	t.Parallel()
	evil := "</style></script><script>alert(1)</script>\x00\x1b[31m\"'&"
	f := sampleRun()
	f.Tool, f.Notes = evil, []string{evil}
	f.Machine.CPUModel, f.Machine.Sysctls = evil, map[string]string{evil: evil}
	f.Config.Topology, f.Config.Paths = evil, []string{evil}
	f.Peers = []Peer{{Path: evil, Name: evil, Version: evil, Command: []string{evil}, Configuration: evil, Missing: evil}}
	for i := range f.Results {
		r := &f.Results[i]
		r.Path = evil + r.Path
		r.Workload += evil
		r.Error, r.BestPeer, r.Notes = evil, evil, []string{evil}
	}
	page, raw := parsedPage(t, f)
	if len(page.all("script")) != 0 || strings.ContainsAny(raw, "\x00\x1b") {
		t.Error("the file's text became a part of the page")
	}
}

func parsedPage(t *testing.T, f *File) (*element, string) {
	t.Helper()
	var b bytes.Buffer
	if err := WriteHTML(&b, f); err != nil {
		t.Fatal(err)
	}
	page, err := parseXML(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return page, b.String()
}

func byID(t *testing.T, page *element, id string) *element {
	t.Helper()
	for _, e := range page.all("") {
		if e.attrs["id"] == id {
			return e
		}
	}
	t.Fatalf("nothing has the id %s", id)
	return nil
}
