package main

import (
	"slices"
	"testing"

	"github.com/spliced-io/spliced/splice"
)

// The line of a session that was handed over has what is seldom only if there was any.
func TestWireArgs(t *testing.T) {
	seldom := []any{"wire_errors_to_target", "wire_errors_to_client", "wire_too_big_to_target", "wire_too_big_to_client", "wire_late", "wire_lost"}
	args := wireArgs(&splice.WireStats{Switched: true, Attempts: 1})
	for _, key := range seldom {
		if slices.Contains(args, key) {
			t.Errorf("%v has %v", args, key)
		}
	}
	args = wireArgs(&splice.WireStats{Switched: true, Attempts: 1, Errors: [2]uint64{0, 1}, TooBig: [2]uint64{2, 3}, Late: 4, Lost: true})
	for _, pair := range [][2]any{
		{"wire_errors_to_client", uint64(1)},
		{"wire_too_big_to_target", uint64(2)},
		{"wire_too_big_to_client", uint64(3)},
		{"wire_late", 4},
		{"wire_lost", true},
	} {
		if i := slices.Index(args, pair[0]); i < 0 || args[i+1] != pair[1] {
			t.Errorf("%v, want %v %v", args, pair[0], pair[1])
		}
	}
}
