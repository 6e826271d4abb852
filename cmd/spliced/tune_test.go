package main

import (
	"runtime"
	gometrics "runtime/metrics"
	"testing"
	"time"
)

func TestHeapPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 100, 1: 100, 1 << 20: 100, 4 << 20: 100, 6 << 20: 66, 8 << 20: 50, 64 << 20: 50, 1 << 40: 50,
	} {
		if got := heapPercent(live); got != want {
			t.Errorf("%d bytes: %d %%, want %d", live, got, want)
		}
	}
}

// The heap is watched as long as a relay runs: it is tight while much is in use,
// and what it was before afterwards.
func TestTightHeap(t *testing.T) {
	t.Setenv("GOGC", "")
	percent := func() uint64 {
		s := []gometrics.Sample{{Name: "/gc/gogc:percent"}}
		gometrics.Read(s)
		return s[0].Value.Uint64()
	}
	before := percent()
	undo := tightHeap()
	if got := percent(); got != heapPercentMax {
		t.Errorf("%d %% to begin with, want %d", got, heapPercentMax)
	}
	inUse := make([]byte, 64<<20)
	deadline := time.Now().Add(30 * time.Second)
	for percent() != heapPercentMin && time.Now().Before(deadline) {
		runtime.GC()
	}
	if got := percent(); got != heapPercentMin {
		t.Errorf("%d %% with %d MiB in use, want %d", got, len(inUse)>>20, heapPercentMin)
	}
	runtime.KeepAlive(inUse)
	undo()
	runtime.GC()
	runtime.GC()
	if got := percent(); got != before {
		t.Errorf("%d %% afterwards, want %d", got, before)
	}
}
