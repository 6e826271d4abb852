package run

import (
	"runtime"
)

// yield lets other goroutines of this process run: a job that never sleeps
// would otherwise hold its processor for 10 ms.
func (w *worker) yield() { runtime.Gosched() }

func (w *worker) letter() byte {
	random := w.o.Random()
	pick := func(a, b byte) byte {
		if random {
			return b
		}
		return a
	}
	switch {
	case w.o.Reads() && w.o.Writes():
		return pick('M', 'm')
	case w.o.Reads():
		return pick('R', 'r')
	case w.o.Writes() && !w.o.Trims():
		return pick('W', 'w')
	}
	return pick('D', 'd')
}
