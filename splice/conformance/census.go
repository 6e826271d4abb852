//go:build linux

package conformance

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// A Census counts what a process has.
type Census struct {
	Descriptors int // all of them
	Sockets     int // of these, sockets
	Pipes       int // of these, ends of pipes
	Goroutines  int
}

// census counts what this process has.
func census() Census {
	c := Census{Goroutines: runtime.NumGoroutine()}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		panic(fmt.Sprintf("no /proc: %v", err))
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		panic(fmt.Sprintf("read /proc/self/fd: %v", err))
	}
	for _, name := range names {
		target, err := os.Readlink("/proc/self/fd/" + name)
		switch {
		case err != nil:
			continue // closed since
		case strings.HasPrefix(target, "socket:"):
			c.Sockets++
		case strings.HasPrefix(target, "pipe:"):
			c.Pipes++
		}
		c.Descriptors++
	}
	return c
}

// TakeCensus counts what this process has.
func TakeCensus() Census { return census() }

// Restored waits until nothing is left of what came after the census.
func (c Census) Restored(t TB) {
	t.Helper()
	c.restored(t)
}

// restored waits until nothing is left of what came after the census.
func (c Census) restored(t TB) {
	t.Helper()
	var now Census
	if within(patience, func() bool {
		now = census()
		return now.Descriptors <= c.Descriptors && now.Sockets <= c.Sockets &&
			now.Pipes <= c.Pipes && now.Goroutines <= c.Goroutines
	}) {
		return
	}
	t.Errorf("left over: %+v, before %+v", now, c)
	if now.Goroutines > c.Goroutines {
		buf := make([]byte, 1<<20)
		t.Logf("%s", buf[:runtime.Stack(buf, true)])
	}
}
