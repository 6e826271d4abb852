package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spliced-io/spliced/proxy"
)

// address is proxy.Addr as an argument.
type address struct{ proxy.Addr }

func (a *address) UnmarshalText(text []byte) (err error) {
	a.Addr, err = proxy.ParseAddr(string(text))
	return err
}

// target is an address that can be dialled.
type target struct{ proxy.Addr }

func (t *target) UnmarshalText(text []byte) (err error) {
	if t.Addr, err = proxy.ParseAddr(string(text)); err != nil {
		return err
	}
	if t.Network == "tcp" && strings.HasSuffix(t.Address, ":0") {
		return fmt.Errorf("address %q: nothing can be reached at port 0: want a port from 1 to 65535", text)
	}
	return nil
}

// duration is a time.Duration that is not negative.
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no duration: want one like 250ms, 30s or 1h30m", text)
	}
	*d = duration(v)
	return nil
}

// size is a number of bytes.
type size int64

// units are powers of 1024 and, with a B alone behind, of 1000.
var units = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// parseSize reads 1048576, 1MiB or 1MB.
func parseSize(s string) (size, error) {
	digits, factor := s, int64(1)
	for _, u := range units {
		if d, ok := strings.CutSuffix(s, u.suffix); ok {
			digits, factor = d, u.factor
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || int64(n) > math.MaxInt64/factor {
		return 0, fmt.Errorf("%q is no number of bytes: want one like 65536, 64KiB or 10MB", s)
	}
	return size(int64(n) * factor), nil
}

func (s *size) UnmarshalText(text []byte) (err error) {
	*s, err = parseSize(string(text))
	return err
}

// count is a number of things.
type count int

func (c *count) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 31)
	if err != nil {
		return fmt.Errorf("%q is no count: want a whole number, 0 or more", text)
	}
	*c = count(n)
	return nil
}
