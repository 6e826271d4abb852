package netbench

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseThreshold reads a percentage, such as 5% or 2.5%, as a part of one. The
// percent sign is asked for: a bare 5 could be 500 %. It is at least 0% and at
// most 1000%.
func ParseThreshold(s string) (float64, error) {
	digits, ok := strings.CutSuffix(s, "%")
	plain := func(r rune) bool { return r >= '0' && r <= '9' || r == '.' }
	if !ok || digits == "" || strings.TrimFunc(digits, plain) != "" {
		return 0, fmt.Errorf("threshold %q: want a percentage such as 5%%", s)
	}
	v, err := strconv.ParseFloat(digits, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("threshold %q: want a percentage such as 5%%", s)
	case v > 1000:
		return 0, fmt.Errorf("threshold %q: want at most 1000%%", s)
	}
	return v / 100, nil
}
