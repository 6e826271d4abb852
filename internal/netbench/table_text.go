package netbench

import (
	"strings"
	"unicode/utf8"
)

// textTable aligns cells by their number of runes. The first columns hold text;
// behind them stand pairs of a number, aligned to the right, and what belongs to
// it, such as its range, to the left.
type textTable struct {
	texts int // how many columns of text
	rows  []textRow
}

type textRow struct {
	kind  textRowKind
	cells []string
}

type textRowKind int

const (
	figureRow textRowKind = iota
	headRow               // one cell a pair
	remarkRow             // free text behind the columns of text
)

func (t *textTable) head(cells ...string)   { t.rows = append(t.rows, textRow{headRow, cells}) }
func (t *textTable) row(cells ...string)    { t.rows = append(t.rows, textRow{figureRow, cells}) }
func (t *textTable) remark(cells ...string) { t.rows = append(t.rows, textRow{remarkRow, cells}) }

func (t *textTable) write(b *strings.Builder) {
	widths := t.widths()
	for _, row := range t.rows {
		var line strings.Builder
		for i, cell := range row.cells {
			gap, width, right := "  ", 0, false
			switch {
			case i < t.texts:
				width = widths[i]
			case row.kind == headRow:
				n := t.texts + 2*(i-t.texts)
				width, right = widths[n]+1+widths[n+1], false
			case row.kind == figureRow:
				width, right = widths[i], (i-t.texts)%2 == 0
				if !right {
					gap = " "
				}
			}
			pad := strings.Repeat(" ", max(0, width-utf8.RuneCountInString(cell)))
			if right {
				line.WriteString(gap + pad + cell)
			} else {
				line.WriteString(gap + cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// widths returns the width of each column of figure rows.
func (t *textTable) widths() []int {
	var widths []int
	widen := func(i, width int) {
		for i >= len(widths) {
			widths = append(widths, 0)
		}
		widths[i] = max(widths[i], width)
	}
	for _, row := range t.rows {
		for i, cell := range row.cells {
			if i < t.texts || row.kind == figureRow {
				widen(i, utf8.RuneCountInString(cell))
			}
		}
	}
	// A head may be wider than its pair.
	for _, row := range t.rows {
		for i, cell := range row.cells {
			if row.kind == headRow && i >= t.texts {
				n := t.texts + 2*(i-t.texts)
				widen(n+1, 0)
				widen(n+1, utf8.RuneCountInString(cell)-1-widths[n])
			}
		}
	}
	return widths
}
