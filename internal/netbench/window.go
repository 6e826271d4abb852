package netbench

import (
	"sync/atomic"
	"time"
)

// windowTimes say when a window opens after the load's first byte, and for how
// long.
type windowTimes struct{ warmup, duration time.Duration }

// window is the time in which the bytes of a load count. Its streams share it:
// rates over windows of their own would add up to more than there was, if the
// streams took turns.
type window struct {
	windowTimes
	base  time.Time
	first atomic.Int64 // when the load's first byte came, in ns after base; 0 before
}

func newWindow(times windowTimes) *window {
	return &window{windowTimes: times, base: time.Now()}
}

// open tells whether what has just arrived counts. The load's first call
// starts its clock.
func (w *window) open() bool {
	now := max(time.Since(w.base), 1)
	w.first.CompareAndSwap(0, int64(now))
	at := now - time.Duration(w.first.Load())
	return at >= w.warmup && at < w.warmup+w.duration
}
