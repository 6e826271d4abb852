package netbench

import (
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

func TestFixedRateNotes(t *testing.T) {
	const micro, milli = int64(time.Microsecond), int64(time.Millisecond)
	for _, test := range []struct {
		name        string
		rate, got   float64
		streams     int
		latency     int64 // of each exchange
		lag         int64 // of each request; 0: not measured
		shortOfRate bool
		late        bool
	}{
		{"as asked", 2000, 2000, 1, 100 * micro, 5 * micro, false, false},
		{"nearly", 2000, 1950, 1, 100 * micro, 5 * micro, false, false},
		{"short", 2000, 1800, 1, 100 * micro, 5 * micro, true, false},
		{"rounding only", 15, 8, 8, 100 * micro, 5 * micro, false, false},
		{"late", 2000, 2000, 1, 100 * milli, 90 * milli, false, true},
		{"unreachable", 1e6, 9e4, 4, 100 * milli, 99 * milli, true, true},
		{"no lag", 2000, 2000, 1, 100 * micro, 0, false, false},
	} {
		histogram := func(value int64) *hdrhistogram.Histogram {
			h := newHistogram()
			for range 10 {
				record(h, time.Duration(value))
			}
			return h
		}
		s := sample{latency: histogram(test.latency)}
		out := Outcome{OpsPerS: test.got}
		if test.lag > 0 {
			var err error
			if out.ScheduleLag, err = encode(histogram(test.lag)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.fixedRate(Load{Rate: test.rate, Streams: test.streams, Duration: time.Second}, &out); err != nil {
			t.Fatal(err)
		}
		notes := strings.Join(s.notes, "\n")
		if strings.Contains(notes, "rate was not reached") != test.shortOfRate || strings.Contains(notes, "sender itself was late") != test.late {
			t.Errorf("%s: the notes are %q", test.name, s.notes)
		}
	}
}
