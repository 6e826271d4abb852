package netbench

import (
	"math"
	"strings"
	"testing"
)

func TestParseThreshold(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]float64{"5%": 0.05, "0%": 0, "2.5%": 0.025, "100%": 1, "1000%": 10, ".5%": 0.005} {
		if got, err := ParseThreshold(in); err != nil || math.Abs(got-want) > 1e-12 {
			t.Errorf("ParseThreshold(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "%", "5", "0.05", "-5%", "+5%", "5 %", "5%%", "1e1%", "0x5%", "NaN%", "Inf%", "1001%", "1.2.3%", ".%", "5％"} {
		got, err := ParseThreshold(in)
		if err == nil {
			t.Errorf("ParseThreshold(%q) = %v, want an error", in, got)
		} else if !strings.Contains(err.Error(), "threshold") || !strings.Contains(err.Error(), "%") {
			t.Errorf("ParseThreshold(%q): %v does not say what is wrong", in, err)
		}
	}
}

func FuzzParseThreshold(f *testing.F) {
	for _, seed := range []string{"5%", "0%", "-1%", "1e308%", "%", "", "0x1p4%", "99999999999999999999%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseThreshold(s)
		if err == nil && !(v >= 0 && v <= 10) {
			t.Errorf("ParseThreshold(%q) = %v", s, v)
		}
		if err == nil && !strings.HasSuffix(s, "%") {
			t.Errorf("ParseThreshold(%q) took a number without a percent sign", s)
		}
	})
}
