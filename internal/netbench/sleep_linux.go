package netbench

import (
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// sleepUntil waits for a point in time, to about ten microseconds: Go's own
// timers are late by up to a millisecond when nothing else wakes the process.
// The goroutine must be locked to its thread.
func sleepUntil(t time.Time) {
	_ = sys.SetTimerSlack(time.Nanosecond) // without it the sender is a little later, and says so
	for d := time.Until(t); d > 0; d = time.Until(t) {
		ts := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&ts, nil) // EINTR: go on with what is left
	}
}
