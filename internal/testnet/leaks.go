package testnet

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// Leaks fails the test if, when it has ended and cleaned up, the process has
// more descriptors, goroutines, child processes or namespaces than now. Call it
// first, so that it looks last. It is not for parallel tests.
func Leaks(t TB) {
	t.Helper()
	// The first use of Go's poller opens descriptors for good.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	before := inventory()
	t.Cleanup(func() {
		t.Helper()
		if left := leftSince(before, 10*time.Second); len(left) > 0 {
			t.Errorf("left behind by the test:\n%s", strings.Join(left, "\n"))
		}
	})
}

// leftSince returns what is there and was not there before, once that is
// nothing or the time is over.
func leftSince(before map[string]string, patience time.Duration) (left []string) {
	const pause = 5 * time.Millisecond
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		left = left[:0]
		for key, value := range inventory() {
			if _, ok := before[key]; !ok {
				left = append(left, value)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		// Go keeps the pipes of its splices until they are collected.
		runtime.GC()
	}
}

// inventory returns what the process holds, by a key that no later thing of
// the same kind has.
func inventory() map[string]string {
	items := osInventory()
	for id, stack := range goroutines() {
		items["goroutine "+id] = stack
	}
	return items
}

// goroutines returns the stacks of all goroutines that a test could have
// started, by their number.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	for n := len(buf); n == len(buf); {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
	}
	header := regexp.MustCompile(`^goroutine (\d+) `)
	found := map[string]string{}
	for i, stack := range strings.Split(string(buf), "\n\n") {
		m := header.FindStringSubmatch(stack)
		// The first is the one that asks.
		if m == nil || i == 0 || isRuntimes(stack) {
			continue
		}
		found[m[1]] = stack
	}
	return found
}

// isRuntimes tells goroutines that the standard library starts once and keeps.
func isRuntimes(stack string) bool {
	for _, name := range []string{"os/signal.signal_recv", "os/signal.loop", "runtime.ensureSigM", "testing.(*M).", "testing.runTests"} {
		if strings.Contains(stack, name) {
			return true
		}
	}
	return false
}

func describe(kind, name, value string) string { return fmt.Sprintf("%s %s: %s", kind, name, value) }
