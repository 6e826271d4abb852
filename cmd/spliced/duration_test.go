package main

import (
	"strings"
	"testing"
)

func TestDurationSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"9999999h":             "too large: want at most 2562047h",
		"1h99999999999999999s": "too large",
		"2562048h":             "too large",
		"2562047h":             "",
		"-1s":                  "no duration",
		"-9999999h":            "no duration",
		"10":                   "no duration",
		"h":                    "no duration",
		"":                     "no duration",
		"12 parsecs":           "no duration",
	} {
		var d duration
		err := d.UnmarshalText([]byte(text))
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}
