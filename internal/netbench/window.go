package netbench

import (
	"errors"
	"time"
)

// errOutside ends a round in which all was well, but for its figure: what was to be counted came before or
// behind the window. The path may have been stuck then, or the machine have let it do nothing for so long.
var errOutside = errors.New("within the measured time: too short, or stuck")

// windowTimes say when a window opens after the load's start, and for how
// long.
type windowTimes struct{ warmup, duration time.Duration }

// window is the time in which the bytes of a load count. Its streams share it:
// rates over windows of their own would add up to more than there was, if the
// streams took turns.
type window struct {
	windowTimes
	*start
}

func newWindow(times windowTimes, start *start) *window { return &window{times, start} }

// open tells whether what has just arrived counts.
func (w *window) open() bool {
	at, started := w.since()
	return started && at >= w.warmup && at < w.warmup+w.duration
}
