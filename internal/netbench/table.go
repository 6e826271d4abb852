package netbench

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// WriteTable writes the results as text, one aligned table a workload: medians
// with [min–max] over the rounds. Paths that gave nothing are named with the
// reason. Units stand in the second line of a head; a GB is 10^9 bytes.
func WriteTable(w io.Writer, f *File) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", machineLine(&f.Machine))
	fmt.Fprintf(&b, "%s\n", configLine(f))
	writePaths(&b, f.Peers)
	for _, g := range groupsOf(f) {
		b.WriteByte('\n')
		g.writeText(&b)
	}
	if len(f.Notes) > 0 {
		b.WriteString("\nnotes\n")
		for _, n := range f.Notes {
			fmt.Fprintf(&b, "  %s\n", printable(n))
		}
	}
	if len(f.Results) == 0 {
		b.WriteString("\nno results\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// writePaths says what was run, with the configuration word for word.
func writePaths(b *strings.Builder, peers []Peer) {
	if len(peers) > 0 {
		b.WriteString("\npaths\n")
	}
	for _, p := range peers {
		fmt.Fprintf(b, "  %s: %s\n", printable(p.Path), printable(p.Name+" "+p.Version))
		if len(p.Command) > 0 {
			fmt.Fprintf(b, "    %s\n", printable(commandLine(p.Command)))
		}
		if text := strings.TrimSpace(printableText(p.Configuration)); text != "" {
			fmt.Fprintf(b, "    | %s\n", strings.ReplaceAll(text, "\n", "\n    | "))
		}
	}
}

func (g *reportGroup) writeText(b *strings.Builder) {
	fmt.Fprintf(b, "%s: %s", printable(g.Workload), g.Detail())
	if n := g.Rounds(); n > 0 {
		fmt.Fprintf(b, ", %s", counted(n, "round"))
	}
	b.WriteByte('\n')

	columns := g.filled(true)
	t := textTable{texts: 1}
	heads, units := []string{"path"}, []string{""}
	scales := make([]scale, len(columns))
	for i, c := range columns {
		scales[i] = c.scale(g.Rows)
		heads = append(heads, c.head)
		units = append(units, scales[i].unit)
	}
	t.head(heads...)
	t.head(units...)
	for _, r := range g.Rows {
		cells := []string{printable(g.rowName(r))}
		if why := absence(r); why != "" {
			t.remark(append(cells, why)...)
			continue
		}
		for i, c := range columns {
			cell := scales[i].cell(c.figure(r))
			cells = append(cells, cell.Median, bracketed(cell.Spread))
		}
		t.row(cells...)
	}
	t.write(b)
	for _, line := range g.remarks() {
		fmt.Fprintf(b, "  %s\n", line)
	}
}

func machineLine(m *Machine) string {
	parts := []string{}
	add := func(s string) {
		if s = printable(s); s != "" {
			parts = append(parts, s)
		}
	}
	add(m.OS + " " + m.Kernel + " " + m.Arch)
	add(m.CPUModel)
	cpus := counted(m.CPUs, "CPU")
	if m.Virtual {
		cpus += " (virtual)"
	}
	add(cpus)
	if m.MemoryBytes > 0 {
		s := scaleFor(byteQuantity, float64(m.MemoryBytes))
		add(strconv.FormatFloat(float64(m.MemoryBytes)*s.factor, 'f', 1, 64) + " " + s.unit)
	}
	add(m.CongestionControl)
	return strings.Join(parts, ", ")
}

func configLine(f *File) string {
	c := &f.Config
	line := fmt.Sprintf("%s, %s of %s s after %s s of warm-up, paths interleaved",
		c.Topology, counted(c.Rounds, "round"), number(c.DurationS), number(c.WarmupS))
	return printable(line) + "; median [min–max]; ratios: more than 1 is better"
}
