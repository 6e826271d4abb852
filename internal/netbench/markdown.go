package netbench

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// WriteMarkdown writes the results as a page with tables and with the charts of
// [WriteSVGs], which it expects in [SVGDir] beside itself. The name of the
// machine stays out of it.
func WriteMarkdown(w io.Writer, f *File) error {
	var b strings.Builder
	b.WriteString("<!-- Written by `make bench` from the JSON of one run. Do not edit. -->\n\n# Benchmarks\n\n")
	b.WriteString("One run of `spliced bench net`; `make bench` repeats it and rewrites this page. " +
		"[bench.md](bench.md) explains the workloads and the figures.\n\n")
	fmt.Fprintf(&b, "- **Run:** %s, %s\n", markdownText(f.Tool), f.Started.UTC().Format("2006-01-02"))
	for _, fact := range append(configFacts(f), machineFacts(&f.Machine, false)...) {
		fmt.Fprintf(&b, "- **%s:** %s\n", markdownText(fact.Name), markdownText(fact.Value))
	}
	b.WriteString("\nEach cell is the median with [least–greatest] over the rounds. Paths took turns within each round; " +
		"ratios compare within a round, and more than 1 is better. Where ranges overlap, this run does not tell the paths apart. " +
		"A GB is 10⁹ bytes.\n")
	for _, n := range f.Notes {
		fmt.Fprintf(&b, "\n> %s\n", markdownText(n))
	}
	for _, g := range groupsOf(f) {
		g.writeMarkdown(&b)
	}
	writePeers(&b, f)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write markdown: %w", err)
	}
	return nil
}

func (g *reportGroup) writeMarkdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s: %s\n\n", markdownText(g.Title()), markdownText(g.Detail()))
	charts := g.charts()
	for _, c := range charts {
		fmt.Fprintf(b, "![%s](%s/%s)\n\n", markdownText(g.heading(c)), SVGDir, g.chartFile(c))
	}
	// What is drawn or judged; the JSON has the rest.
	columns := g.filled(true)
	heads, rule := []string{"path"}, []string{"---"}
	scales := make([]scale, len(columns))
	for i, c := range columns {
		scales[i] = c.scale(g.Rows)
		heads = append(heads, markdownText(c.headWith(scales[i])))
		rule = append(rule, "---:")
	}
	writeMarkdownRow(b, heads)
	writeMarkdownRow(b, rule)
	for _, r := range g.Rows {
		cells := []string{markdownText(g.rowName(r))}
		if why := absence(r); why != "" {
			cells = append(cells, "*"+markdownText(why)+"*")
			for len(cells) < len(heads) {
				cells = append(cells, "")
			}
			// A group without any figure has no second column.
			if len(heads) < len(cells) {
				cells = []string{cells[0] + " – " + cells[1]}
			}
		} else {
			for i, c := range columns {
				cells = append(cells, scales[i].cell(c.figure(r)).String())
			}
		}
		writeMarkdownRow(b, cells)
	}
	if remarks := g.remarks(); len(remarks) > 0 {
		b.WriteByte('\n')
		for _, line := range remarks {
			fmt.Fprintf(b, "- %s\n", markdownText(line))
		}
	}
}

func writeMarkdownRow(b *strings.Builder, cells []string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func writePeers(b *strings.Builder, f *File) {
	if len(f.Peers) == 0 {
		return
	}
	b.WriteString("\n## Paths as they were run\n")
	for _, p := range f.Peers {
		fmt.Fprintf(b, "\n### %s\n\n%s\n", markdownText(p.Path), markdownText(strings.TrimSpace(p.Name+" "+p.Version)))
		if p.Missing != "" {
			fmt.Fprintf(b, "\nMissing: %s\n", markdownText(p.Missing))
		}
		if len(p.Command) > 0 {
			writeFence(b, "sh", commandLine(p.Command))
		}
		if text := strings.TrimSpace(printableText(p.Configuration)); text != "" {
			writeFence(b, "", text)
		}
	}
}

// writeFence writes text as a block of code, whatever it contains.
func writeFence(b *strings.Builder, language, text string) {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	fmt.Fprintf(b, "\n%s%s\n%s\n%s\n", fence, language, text, fence)
}

// markdownText makes s plain text, in a table too.
func markdownText(s string) string {
	s = printable(s)
	var b strings.Builder
	for _, r := range s {
		if slices.Contains([]rune("\\`*_[]<>|#"), r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
