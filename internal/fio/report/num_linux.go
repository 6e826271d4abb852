package report

import (
	"fmt"
	"strconv"
)

// amount shortens a number to at most digits digits, as fio does: 3.4 of a
// unit, 12, 340k.
func amount(n uint64, digits int, binary bool, unit string) string {
	prefixes := []string{"", "k", "M", "G", "T", "P", "E"}
	thousand := uint64(1000)
	if binary {
		prefixes = []string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}
		thousand = 1024
	}
	rest, shortened := uint64(0), false
	i := 0
	for len(strconv.FormatUint(n, 10)) > digits && i+1 < len(prefixes) {
		rest, n = n%thousand, n/thousand
		shortened = true
		i++
	}
	width := len(strconv.FormatUint(n, 10))
	if !shortened || digits-width <= 1 {
		if shortened && rest >= thousand/2 {
			n++
		}
		return fmt.Sprintf("%d%s%s", n, prefixes[i], unit)
	}
	decimals := strconv.FormatFloat(float64(rest)/float64(thousand), 'f', digits-width-1, 64)
	if decimals[0] == '1' {
		n++
	}
	return fmt.Sprintf("%d.%s%s%s", n, decimals[2:], prefixes[i], unit)
}
