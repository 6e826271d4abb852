package netbench

import (
	"math"
	"strconv"
	"strings"
	"unicode"
)

// quantity is what a figure counts, which decides how it is written.
type quantity int

const (
	plainQuantity  quantity = iota // in the unit its column names
	rateQuantity                   // bytes per second
	byteQuantity                   // bytes
	microsQuantity                 // microseconds
	shareQuantity                  // a part of one
)

// scale turns a figure into the number that is printed with unit.
type scale struct {
	unit     string
	factor   float64
	decimals int
}

// scaleOf returns the scale that suits all figures, so that one column or chart
// has one unit and as many decimals everywhere. Plain quantities are in unit.
func scaleOf(q quantity, unit string, figures []*Figure) scale {
	greatest := 0.0
	for _, f := range figures {
		greatest = math.Max(greatest, math.Abs(f.Median))
	}
	s := scaleFor(q, greatest)
	if s.unit == "" {
		s.unit = unit
	}
	s.decimals = s.decimalsFor(figures)
	return s
}

// decimalsFor returns with how many decimals to write figures: three digits of
// the greatest, or one more if that helps the least; none for counts.
func (s scale) decimalsFor(figures []*Figure) int {
	greatest, least, whole := 0.0, math.Inf(1), true
	for _, f := range figures {
		if m := math.Abs(f.Median * s.factor); m > 0 {
			greatest, least = math.Max(greatest, m), math.Min(least, m)
		}
		for _, v := range []float64{f.Median, f.Min, f.Max} {
			whole = whole && v*s.factor == math.Trunc(v*s.factor)
		}
	}
	if whole {
		return 0
	}
	most := decimalsOf(greatest)
	return min(max(decimalsOf(least), most), most+1)
}

// decimalsOf returns how many decimals show three digits of v, at most three.
func decimalsOf(v float64) int {
	switch {
	case v >= 100:
		return 0
	case v >= 10:
		return 1
	case v >= 1:
		return 2
	default:
		return 3
	}
}

// median writes the middle of f.
func (s scale) median(f *Figure) string { return s.write(f.Median) }

// spread writes the ends of f, "" if there was only one round.
func (s scale) spread(f *Figure) string {
	if len(f.Samples) == 1 {
		return ""
	}
	return s.write(f.Min) + "–" + s.write(f.Max)
}

func (s scale) write(v float64) string {
	v *= s.factor
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	if v == 0 {
		return "0" // none at all, rather than little
	}
	text := strconv.FormatFloat(v, 'f', s.decimals, 64)
	if strings.Trim(text, "-0.") == "" {
		// So small beside the others that it would look like nothing.
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return text
}

// scaleFor returns the unit that suits figures up to greatest.
func scaleFor(q quantity, greatest float64) scale {
	pick := func(steps ...scale) scale {
		for _, s := range steps {
			if greatest*s.factor >= 1 {
				return s
			}
		}
		return steps[len(steps)-1]
	}
	switch q {
	case rateQuantity:
		return pick(scale{unit: "GB/s", factor: 1e-9}, scale{unit: "MB/s", factor: 1e-6}, scale{unit: "kB/s", factor: 1e-3}, scale{unit: "B/s", factor: 1})
	case byteQuantity:
		return pick(scale{unit: "GiB", factor: 1. / (1 << 30)}, scale{unit: "MiB", factor: 1. / (1 << 20)}, scale{unit: "KiB", factor: 1. / (1 << 10)}, scale{unit: "B", factor: 1})
	case microsQuantity:
		// Some milliseconds still read well beside a median of dozens of
		// microseconds: the unit changes late.
		switch {
		case greatest >= 1e7:
			return scale{unit: "s", factor: 1e-6}
		case greatest >= 1e5:
			return scale{unit: "ms", factor: 1e-3}
		}
		return scale{unit: "µs", factor: 1}
	case shareQuantity:
		return scale{unit: "%", factor: 100}
	default:
		return scale{unit: "", factor: 1}
	}
}

// number writes v with at most six digits and no needless ones.
func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// sizeText writes a size as people name it: 64 B, 16 KiB, 1 MiB.
func sizeText[T int | int64](bytes T) string {
	switch {
	case bytes >= 1<<20 && bytes%(1<<20) == 0:
		return strconv.FormatInt(int64(bytes>>20), 10) + " MiB"
	case bytes >= 1<<10 && bytes%(1<<10) == 0:
		return strconv.FormatInt(int64(bytes>>10), 10) + " KiB"
	default:
		return strconv.FormatInt(int64(bytes), 10) + " B"
	}
}

// counted writes n with its noun in singular or plural.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// printable makes s fit for a terminal and for XML: a file that was read may
// hold anything. Line breaks and tabs become spaces.
func printable(s string) string {
	return strings.Join(strings.Fields(printableText(s)), " ")
}

// printableText is [printable] for text of several lines, which it keeps.
func printableText(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return -1
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
