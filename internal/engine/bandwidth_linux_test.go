package engine

import "testing"

// Packets that the kernel forwards keep no bandwidth.
func TestBandwidthRefusesWire(t *testing.T) {
	t.Parallel()
	for _, l := range []Limits{{RateAToB: 1}, {RateBToA: 1}, {SharedAToB: NewBandwidth(1)}, {SharedBToA: NewBandwidth(1)}} {
		if w := wireFor(Wire, WirePolicy{}, l); w.phase != wireOff || w.stats.Refused != WhyWireBraked || w.stats.Refused.String() != "wire-bandwidth" {
			t.Errorf("%+v: phase %d, refused for %v", l, w.phase, w.stats.Refused)
		}
	}
	if w := wireFor(Wire, WirePolicy{}, Limits{}); w.phase == wireOff {
		t.Errorf("refused without a limit: %v", w.stats.Refused)
	}
}
