package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]size{
		"0": 0, "1": 1, "65536": 65536, "12B": 12, "64KiB": 64 << 10, "10MB": 10e6, "1kB": 1000, "1KB": 1000,
		"2GiB": 2 << 30, "3TB": 3e12, "9223372036854775807": math.MaxInt64,
	} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "B", "x", "-1", "+1", "1.5MB", "1 MB", "1K", "1mb", "9223372036854775808", "9999999TiB"} {
		if got, err := parseSize(in); err == nil || !strings.Contains(err.Error(), strconv.Quote(in)) {
			t.Errorf("parseSize(%q) = %d, %v; want an error that names it", in, got, err)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"0", "64KiB", "10MB", "-1", "99999999999999999999", "1B", "KiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSize(s)
		if err == nil && n < 0 {
			t.Errorf("parseSize(%q) = %d", s, n)
		}
		if err != nil && n != 0 {
			t.Errorf("parseSize(%q) = %d with %v", s, n, err)
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"0s", "1h30m", "-1s", "5", "", "1e3s", "9999999h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d := duration(-1)
		switch err := d.UnmarshalText([]byte(s)); {
		case err == nil && d < 0:
			t.Errorf("%q is %d", s, d)
		case err != nil && d != -1:
			t.Errorf("%q changed the value to %d with %v", s, d, err)
		}
	})
}

func FuzzPassedFDs(f *testing.F) {
	f.Add("42", "1", 42)
	f.Add("42", "1", 43)
	f.Add("", "", 1)
	f.Add("42", "-1", 42)
	f.Add("42", "99999999999", 42)
	f.Add("x", "1", 42)
	f.Fuzz(func(t *testing.T, owner, fds string, pid int) {
		env := map[string]string{"LISTEN_PID": owner, "LISTEN_FDS": fds}
		n, err := passedFDs(func(name string) (string, bool) { v, ok := env[name]; return v, ok }, pid)
		if n < 0 || n > maxPassed || err != nil && n != 0 {
			t.Errorf("LISTEN_PID=%q LISTEN_FDS=%q for %d: %d, %v", owner, fds, pid, n, err)
		}
		if o, perr := strconv.Atoi(owner); n > 0 && (perr != nil || o != pid) {
			t.Errorf("LISTEN_PID=%q taken by %d", owner, pid)
		}
	})
}

func TestPassedFDs(t *testing.T) {
	for _, tc := range []struct {
		env map[string]string
		n   int
		bad bool
	}{
		{env: nil},
		{env: map[string]string{"LISTEN_FDS": "1"}},
		{env: map[string]string{"LISTEN_PID": "7"}},
		{env: map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": "2"}, n: 2},
		{env: map[string]string{"LISTEN_PID": "8", "LISTEN_FDS": "2"}},
		{env: map[string]string{"LISTEN_PID": "8", "LISTEN_FDS": "x"}},
		{env: map[string]string{"LISTEN_PID": "x", "LISTEN_FDS": "2"}, bad: true},
		{env: map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": "x"}, bad: true},
		{env: map[string]string{"LISTEN_PID": "7", "LISTEN_FDS": "1025"}, bad: true},
	} {
		n, err := passedFDs(func(name string) (string, bool) { v, ok := tc.env[name]; return v, ok }, 7)
		if n != tc.n || (err != nil) != tc.bad {
			t.Errorf("%v: %d, %v", tc.env, n, err)
		}
	}
}

// The pattern is the same however it is cut.
func FuzzPattern(f *testing.F) {
	f.Add(int64(0), 100)
	f.Add(int64(3), 5)
	f.Add(int64(7), 1)
	f.Add(int64(maxPattern-9), 9)
	f.Fuzz(func(t *testing.T, at int64, n int) {
		if at < 0 || at > maxPattern || n < 0 || n > 1000 {
			t.Skip("no stretch of the pattern")
		}
		got := make([]byte, n)
		fillPattern(got, at)
		want := make([]byte, n)
		for i := range want {
			var w [8]byte
			k := uint64(at) + uint64(i)
			binary.BigEndian.PutUint64(w[:], (k/8+1)*0x9E3779B97F4A7C15)
			want[i] = w[k%8]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes from %d on: %x, want %x", n, at, got, want)
		}
	})
}

func TestOneLine(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	log.Info("x", "error", oneLine{errors.Join(errors.New("a"), errors.New("b"))})
	if !strings.Contains(b.String(), `error="a; b"`) {
		t.Errorf("logged %q", b.String())
	}
}
