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
	if err != nil && overflows(string(text)) {
		return fmt.Errorf("%q is too large: want at most %s", text, time.Duration(math.MaxInt64).Truncate(time.Hour))
	}
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no duration: want one like 250ms, 30s or 1h30m", text)
	}
	*d = duration(v)
	return nil
}

// overflows says whether what is no duration would be one if its numbers had a
// digit each: package time does not tell.
func overflows(text string) bool {
	var short []rune
	digit := false
	for _, r := range text {
		was := digit
		if digit = '0' <= r && r <= '9'; !digit || !was {
			short = append(short, r)
		}
	}
	d, err := time.ParseDuration(string(short))
	return err == nil && d >= 0
}

// size is a number of bytes.
type size = proxy.Size

// parseSize reads 1048576, 1MiB or 1MB.
func parseSize(s string) (n size, err error) {
	err = n.UnmarshalText([]byte(s))
	return n, err
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
