//go:build linux

package conformance

import "time"

const (
	// patience is how long anything may take that should happen at once: much
	// more than a busy machine needs, so that only a hang is an error.
	patience = 10 * time.Second
	// lasting is how long a whole scenario may take.
	lasting = 30 * time.Second
	// glance is the time between two looks at a condition that has no event.
	glance = 2 * time.Millisecond
	// calm is for how many looks a figure must not change to be at rest.
	calm = 30
)

// eventually waits until cond holds.
func eventually(t TB, what string, cond func() bool) {
	t.Helper()
	if !within(patience, cond) {
		t.Fatalf("not within %v: %s", patience, what)
	}
}

// within looks at cond again and again, for at most d.
func within(d time.Duration, cond func() bool) bool {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for end := time.Now().Add(d); ; <-tick.C {
		if cond() {
			return true
		}
		if time.Now().After(end) {
			return cond()
		}
	}
}

// settled returns a figure that has come to rest.
func settled[T comparable](t TB, what string, sample func() T) T {
	t.Helper()
	var last T
	same := 0
	if !within(patience, func() bool {
		now := sample()
		if now != last {
			last, same = now, 0
			return false
		}
		same++
		return same >= calm
	}) {
		t.Fatalf("not at rest within %v: %s", patience, what)
	}
	return last
}
