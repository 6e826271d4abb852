package job

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"
)

var errOverflow = errors.New("number too large")

// size reads a number of bytes: decimal or 0x hexadecimal, or an expression in
// parentheses, with one of the suffixes k m g t p, [i]b allowed after it. With
// kb_base=1024 a plain suffix is a power of 1024 and one with i a power of
// 1000; with kb_base=1000 it is the other way round. That is fio's rule.
func size(s string, kbBase uint64) (uint64, error) {
	n, suffix, err := leading(s)
	if err != nil {
		return 0, err
	}
	mult, err := sizeSuffix(suffix, kbBase)
	if err != nil {
		return 0, fmt.Errorf("%q is no size: %w", s, err)
	}
	return scale(n, mult)
}

func scale(n number, mult uint64) (uint64, error) {
	if n.whole {
		hi, lo := bits.Mul64(n.u, mult)
		if hi != 0 {
			return 0, errOverflow
		}
		return lo, nil
	}
	f := n.f * float64(mult)
	if f < 0 || math.IsNaN(f) {
		return 0, errors.New("negative")
	}
	if f >= 1<<63 {
		return 0, errOverflow
	}
	return uint64(f), nil
}

func sizeSuffix(s string, kbBase uint64) (uint64, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	if s == "" || s == "b" {
		return 1, nil
	}
	power := strings.IndexByte("kmgtpe", s[0])
	if power < 0 {
		return 0, fmt.Errorf("unknown suffix %q", s)
	}
	base := kbBase
	switch s[1:] {
	case "", "b":
	case "i", "ib":
		if base = 1000; kbBase == 1000 {
			base = 1024
		}
	default:
		return 0, fmt.Errorf("unknown suffix %q", s)
	}
	mult := uint64(1)
	for range power + 1 {
		mult *= base
	}
	return mult, nil
}

// duration reads a time: a number with d, h, m, s, ms, us or ns, without one
// in unit, or days:hours:minutes:seconds.
func duration(s string, unit time.Duration) (time.Duration, error) {
	if strings.HasPrefix(s, "(") {
		unit = time.Microsecond
	}
	if strings.Contains(s, ":") {
		return clock(s)
	}
	n, suffix, err := leading(s)
	if err != nil {
		return 0, err
	}
	switch strings.ToLower(strings.TrimSpace(suffix)) {
	case "":
	case "d":
		unit = 24 * time.Hour
	case "h":
		unit = time.Hour
	case "m", "min":
		unit = time.Minute
	case "s", "sec":
		unit = time.Second
	case "ms", "msec":
		unit = time.Millisecond
	case "us", "usec":
		unit = time.Microsecond
	case "ns", "nsec":
		unit = time.Nanosecond
	default:
		return 0, fmt.Errorf("%q is no time: unknown suffix %q", s, suffix)
	}
	v, err := scale(n, uint64(unit))
	if err == nil && v > math.MaxInt64 {
		err = errOverflow
	}
	return time.Duration(v), err
}

func clock(s string) (time.Duration, error) {
	parts := strings.Split(s, ":")
	units := []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second}
	if len(parts) > len(units) {
		return 0, fmt.Errorf("%q is no time", s)
	}
	units = units[len(units)-len(parts):]
	var sum time.Duration
	for i, p := range parts {
		n, suffix, err := leading(p)
		if err != nil || suffix != "" {
			return 0, fmt.Errorf("%q is no time", s)
		}
		v, err := scale(n, uint64(units[i]))
		if err != nil || v > math.MaxInt64-uint64(sum) {
			return 0, errOverflow
		}
		sum += time.Duration(v)
	}
	return sum, nil
}

// A number is whole where it was written as one: a float64 would round sizes
// above 2^53.
type number struct {
	whole bool
	u     uint64
	f     float64
}

// leading splits s into the number at its beginning and the rest.
func leading(s string) (number, string, error) {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "(") {
		f, rest, err := expression(s)
		if err != nil {
			return number{}, "", err
		}
		if f == math.Trunc(f) && f >= 0 && f < 1<<53 {
			return number{whole: true, u: uint64(f)}, rest, nil
		}
		return number{f: f}, rest, nil
	}
	base, start := uint64(10), 0
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		base, start = 16, 2
	}
	i, u := start, uint64(0)
	for ; i < len(s); i++ {
		d, ok := digit(s[i])
		if !ok || d >= base {
			break
		}
		hi, lo := bits.Mul64(u, base)
		sum, carry := bits.Add64(lo, d, 0)
		if hi != 0 || carry != 0 {
			return number{}, "", errOverflow
		}
		u = sum
	}
	if i == start {
		return number{}, "", fmt.Errorf("%q is no number", s)
	}
	return number{whole: true, u: u}, s[i:], nil
}

func digit(c byte) (uint64, bool) {
	switch {
	case '0' <= c && c <= '9':
		return uint64(c - '0'), true
	case 'a' <= c && c <= 'f':
		return uint64(c-'a') + 10, true
	case 'A' <= c && c <= 'F':
		return uint64(c-'A') + 10, true
	}
	return 0, false
}
