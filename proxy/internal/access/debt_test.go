package access

import (
	"net/netip"
	"testing"
	"time"
)

// Who has used up its burst with one process has with the next.
func TestDebts(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	before, after := NewRate(1, 3), NewRate(1, 3)
	start := before.epoch
	for range 3 {
		before.take(a, start)
	}
	before.take(b, start)
	debts := before.debts(1<<20, start.Add(time.Second/2))
	if len(debts) != 2*debtSize {
		t.Fatalf("%d bytes of debts", len(debts))
	}
	after.owe(append(debts, 1, 2, 3), start.Add(time.Second/2)) // and something that is cut off
	for _, tt := range []struct {
		addr netip.Addr
		at   time.Duration
		want bool
	}{
		{a, time.Second / 2, false},
		{b, time.Second / 2, true},
		{b, time.Second / 2, true},
		{b, time.Second / 2, false},
		{a, time.Second, true},
		{a, time.Second, false},
	} {
		if got := after.take(tt.addr, start.Add(tt.at)); got != tt.want {
			t.Errorf("%v after %v: %v, want %v", tt.addr, tt.at, got, tt.want)
		}
	}
	if got := before.debts(debtSize, start.Add(time.Second/2)); len(got) != debtSize {
		t.Errorf("%d bytes, want those of one client", len(got))
	}
	if got := before.debts(1<<20, start.Add(time.Minute)); got != nil {
		t.Errorf("%d bytes although nobody owes anything", len(got))
	}
	// No more than a burst, whatever is said.
	lie := NewRate(1, 100)
	lie.epoch = start
	for range 50 {
		lie.take(a, start)
	}
	strict := NewRate(1, 1)
	strict.epoch = start
	strict.owe(lie.debts(1<<20, start), start)
	if !strict.take(a, start) { // it is left out
		t.Error("a client owes more than it could have")
	}
	(*Rate)(nil).owe(debts, start)
}
