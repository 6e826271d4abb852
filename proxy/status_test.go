package proxy

import (
	"testing"

	"github.com/spliced-io/spliced/splice"
)

// What sessions say of their ways to wire is summed up, also what is seldom.
func TestWireTotals(t *testing.T) {
	var sum WireStats
	sum.add(nil)
	sum.add(&splice.WireStats{Switched: true, Attempts: 3, Late: 2, TooBig: [2]uint64{5, 0}, Errors: [2]uint64{0, 7}})
	sum.add(&splice.WireStats{Switched: true, Attempts: 1, Late: 1, TooBig: [2]uint64{1, 2}, Lost: true})
	sum.add(&splice.WireStats{Refused: splice.WhyWireBusy, Attempts: 10})
	want := WireStats{Attempts: 14, Failed: 12, HandedOver: 2, Lost: 1, Late: 3, TooBig: [2]uint64{6, 2}, Errors: [2]uint64{0, 7}}
	want.Refused[splice.WhyWireBusy] = 1
	if sum != want {
		t.Errorf("%+v, want %+v", sum, want)
	}
}
