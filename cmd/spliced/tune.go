package main

import (
	"os"
	"runtime"
	"runtime/debug"
	gometrics "runtime/metrics"
	"sync"
)

// tune sets Go's runtime up for a relay, until undo is called.
func tune() (undo func()) {
	spareProcessor()
	return tightHeap()
}

// spareProcessor gives Go one processor more than there are event loops. When
// all of its processors wait in system calls, as loops do most of the time, Go's
// monitor takes them away and gives them back thousands of times a second; an
// idle one spares that an eighth of the CPU time of short connections
// (docs/engines.md).
func spareProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.NumCPU() + 1)
	}
}

// tightHeap has Go's heap grow by half of what is in use before it is collected,
// not by all of it: that is what a quarter of the memory of an idle connection
// was. A small heap is given room, or short connections would pay for it
// (docs/engines.md).
func tightHeap() (undo func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	w := &heapWatch{percent: heapPercent(0)}
	w.before = debug.SetGCPercent(w.percent)
	w.rearm()
	return w.stop
}

const (
	heapRoom       = 4 << 20 // bytes of garbage for which no collection is worth it
	heapPercentMin = 50
	heapPercentMax = 100
)

// heapPercent is GOGC for so many bytes in use.
func heapPercent(live uint64) int {
	if live == 0 {
		return heapPercentMax
	}
	return max(heapPercentMin, int(min(heapPercentMax, 100*heapRoom/live)))
}

// A heapWatch looks at the heap after each collection.
type heapWatch struct {
	mu              sync.Mutex
	stopped         bool
	percent, before int
}

// A cycle is garbage at once: its finalizer is run after the next collection.
type cycle struct{ _ *byte }

func (w *heapWatch) rearm() { runtime.SetFinalizer(new(cycle), func(*cycle) { w.collected() }) }

func (w *heapWatch) collected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	live := []gometrics.Sample{{Name: "/gc/heap/live:bytes"}}
	gometrics.Read(live)
	if live[0].Value.Kind() != gometrics.KindUint64 {
		return // a Go that does not tell
	}
	// Setting it stops the world for a moment.
	if p := heapPercent(live[0].Value.Uint64()); p < w.percent*9/10 || p > w.percent*11/10 {
		w.percent = p
		debug.SetGCPercent(p)
	}
	w.rearm()
}

func (w *heapWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	debug.SetGCPercent(w.before)
}
