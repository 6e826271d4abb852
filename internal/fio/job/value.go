package job

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A setter stores a value. Bare is an option without "=".
type setter func(o *Options, v string, bare bool) error

func text(at func(*Options) *string) setter {
	return func(o *Options, v string, bare bool) error {
		if bare {
			return errors.New("needs a value")
		}
		*at(o) = v
		return nil
	}
}

// flag is a boolean; bare is true.
func flag(at func(*Options) *bool) setter {
	return func(o *Options, v string, bare bool) error {
		if bare {
			*at(o) = true
			return nil
		}
		n, err := strconv.ParseInt(v, 0, 64)
		if err != nil {
			switch strings.ToLower(v) {
			case "true", "yes", "on":
				n = 1
			case "false", "no", "off":
			default:
				n = -1
			}
		}
		if n != 0 && n != 1 {
			return fmt.Errorf("%q is neither 0 nor 1", v)
		}
		*at(o) = n != 0
		return nil
	}
}

func choice(at func(*Options) *string, words ...string) setter {
	return func(o *Options, v string, _ bool) error {
		for _, w := range words {
			// "name>meaning" is another word for the same.
			name, meaning, ok := strings.Cut(w, ">")
			if !ok {
				meaning = name
			}
			if v == name {
				*at(o) = meaning
				return nil
			}
		}
		var names []string
		for _, w := range words {
			name, _, _ := strings.Cut(w, ">")
			names = append(names, name)
		}
		return fmt.Errorf("%q is none of %s", v, strings.Join(names, ", "))
	}
}

func integer(at func(*Options) *int, least, most int) setter {
	return func(o *Options, v string, bare bool) error {
		n, err := bounded(v, o.KBBase, int64(least), int64(most))
		if err == nil {
			*at(o) = int(n)
		}
		return err
	}
}

func bounded(v string, kbBase uint64, least, most int64) (int64, error) {
	text, negative := strings.CutPrefix(v, "-")
	u, err := size(text, kbBase)
	if err != nil {
		return 0, err
	}
	if u > math.MaxInt64 {
		return 0, errOverflow
	}
	n := int64(u)
	if negative {
		n = -n
	}
	if n < least || n > most {
		return 0, fmt.Errorf("%s is outside %d to %d", v, least, most)
	}
	return n, nil
}

func bytes(at func(*Options) *uint64, least uint64) setter {
	return func(o *Options, v string, bare bool) error {
		n, err := size(v, o.KBBase)
		if err != nil {
			return err
		}
		if n < least || n > math.MaxInt64 {
			return fmt.Errorf("%s is outside %d to %d", v, least, int64(math.MaxInt64))
		}
		*at(o) = n
		return nil
	}
}

func amount(at func(*Options) *Amount) setter {
	return func(o *Options, v string, bare bool) error {
		if digits, ok := strings.CutSuffix(v, "%"); ok {
			f, err := strconv.ParseFloat(digits, 64)
			if err != nil || f < 0 || f > 1000 || math.IsNaN(f) {
				return fmt.Errorf("%q is no percentage", v)
			}
			*at(o) = Amount{Percent: f}
			return nil
		}
		if strings.HasSuffix(v, "z") {
			return errors.New("zones (suffix z) are not supported by spliced fio")
		}
		n, err := size(v, o.KBBase)
		if err == nil && n > math.MaxInt64 {
			err = errOverflow
		}
		*at(o) = Amount{Bytes: n}
		return err
	}
}

func period(at func(*Options) *time.Duration, unit time.Duration) setter {
	return func(o *Options, v string, bare bool) error {
		d, err := duration(v, unit)
		if err == nil {
			*at(o) = d
		}
		return err
	}
}

func floats(at func(*Options) *[]float64, most int) setter {
	return func(o *Options, v string, bare bool) error {
		var list []float64
		for _, word := range strings.FieldsFunc(v, func(r rune) bool { return r == ':' || r == ' ' }) {
			f, err := strconv.ParseFloat(word, 64)
			if err != nil || math.IsNaN(f) || f < 0 {
				return fmt.Errorf("%q is no number", word)
			}
			list = append(list, f)
		}
		if len(list) == 0 || len(list) > most {
			return fmt.Errorf("wants 1 to %d numbers with colons between them", most)
		}
		*at(o) = list
		return nil
	}
}

// perDirection splits "a,b,c" into read, write, trim. "a" is for all, "a,b"
// gives trim the value of write, and an empty place leaves what was there.
func perDirection(v string, set func(dir int, v string) error) error {
	parts := strings.Split(v, ",")
	if len(parts) > Directions {
		return fmt.Errorf("%q: more than read, write and trim", v)
	}
	for dir := range Directions {
		part := parts[min(dir, len(parts)-1)]
		if part == "" {
			continue
		}
		if err := set(dir, part); err != nil {
			return err
		}
	}
	return nil
}

func byteTriple(at func(*Options) *Triple[uint64], least uint64) setter {
	return func(o *Options, v string, bare bool) error {
		return perDirection(v, func(dir int, v string) error {
			return bytes(func(o *Options) *uint64 { return &at(o)[dir] }, least)(o, v, false)
		})
	}
}

func intTriple(at func(*Options) *Triple[int], least, most int) setter {
	return func(o *Options, v string, bare bool) error {
		return perDirection(v, func(dir int, v string) error {
			return integer(func(o *Options) *int { return &at(o)[dir] }, least, most)(o, v, false)
		})
	}
}

func periodTriple(at func(*Options) *Triple[time.Duration], unit time.Duration) setter {
	return func(o *Options, v string, bare bool) error {
		return perDirection(v, func(dir int, v string) error {
			return period(func(o *Options) *time.Duration { return &at(o)[dir] }, unit)(o, v, false)
		})
	}
}

func span(v string, kbBase uint64) (Span, error) {
	lo, hi, ok := strings.Cut(v, "-")
	if !ok {
		lo, hi, ok = strings.Cut(v, ":")
	}
	if !ok {
		hi = lo
	}
	a, err := size(lo, kbBase)
	if err != nil {
		return Span{}, err
	}
	b, err := size(hi, kbBase)
	if err != nil {
		return Span{}, err
	}
	if a > b {
		a, b = b, a
	}
	if a == 0 || b > math.MaxInt64 {
		return Span{}, fmt.Errorf("%q is outside 1 to %d", v, int64(math.MaxInt64))
	}
	return Span{a, b}, nil
}
