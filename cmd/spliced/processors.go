package main

import (
	"os"
	"runtime"
)

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
