package netbench

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SVGDir is where [WriteMarkdown] expects the charts, relative to the page: what
// [WriteSVGs] is to be given, beside the page.
const SVGDir = "benchmarks"

// svgMark begins every chart file, so that those of an earlier run can be told
// from files of others.
const svgMark = "<!-- written by spliced bench -->\n"

// WriteSVGs writes one file a chart into dir, which is made if it is not there,
// and removes the charts of earlier runs. Other files stay. A chart is replaced
// as a whole or not at all.
func WriteSVGs(dir string, f *File) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write charts: %w", err)
	}
	written := map[string]bool{}
	for _, g := range groupsOf(f) {
		for _, c := range g.charts() {
			name := g.chartFile(c)
			written[name] = true
			svg := svgMark + chartSVG(c, "c", g.heading(c), true)
			if err := replaceFile(filepath.Join(dir, name), []byte(svg)); err != nil {
				return fmt.Errorf("write charts: %w", err)
			}
		}
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil {
		return fmt.Errorf("write charts: %w", err)
	}
	for _, name := range old {
		if written[filepath.Base(name)] || !hasMark(name) {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write charts: %w", err)
		}
	}
	return nil
}

func (g *reportGroup) chartFile(c *chart) string { return g.slug + "-" + c.kind + ".svg" }

// heading names a chart that stands alone.
func (g *reportGroup) heading(c *chart) string {
	return c.title + " · " + printable(g.Workload) + ", " + g.Detail()
}

func hasMark(name string) bool {
	data, err := os.ReadFile(name)
	return err == nil && strings.HasPrefix(string(data), svgMark)
}

// replaceFile writes data beside name and then takes its place.
func replaceFile(name string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once it is renamed, as it should
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}
