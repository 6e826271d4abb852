package netbench

import (
	"fmt"
	"os"
	"time"
)

// memoryWatch looks at the memory of the whole machine. What a program has
// redirected is charged to no socket and no process, and is seen only here.
type memoryWatch struct {
	before, least int64
	stop, stopped chan struct{}
}

// watchMemory looks every few milliseconds until end.
func watchMemory() (*memoryWatch, error) {
	before, err := availableMemory()
	if err != nil {
		return nil, err
	}
	w := &memoryWatch{before: before, least: before, stop: make(chan struct{}), stopped: make(chan struct{})}
	go w.run()
	return w, nil
}

func (w *memoryWatch) run() {
	defer close(w.stopped)
	const pause = 10 * time.Millisecond
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		if now, err := availableMemory(); err == nil {
			w.least = min(w.least, now)
		}
		select {
		case <-ticker.C:
		case <-w.stop:
			return
		}
	}
}

// end returns by how much the memory that is to be had has shrunk at most.
func (w *memoryWatch) end() int64 {
	close(w.stop)
	<-w.stopped
	return w.before - w.least
}

func availableMemory() (int64, error) {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read the machine's memory: %w", err)
	}
	kib, ok := keyed(info, "MemAvailable")
	if !ok {
		return 0, fmt.Errorf("read the machine's memory: /proc/meminfo has no MemAvailable")
	}
	return kib << 10, nil
}
