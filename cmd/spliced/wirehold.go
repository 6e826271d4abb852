package main

import (
	"sync"

	"github.com/spliced-io/spliced/splice"
)

// A wireHold keeps the program of wire loaded, once, however often it is asked to: no connection
// has to wait for it, and the first download is not over before. Its zero value holds nothing.
type wireHold struct {
	mu      sync.Mutex
	release func() // nil: nothing is held
	over    bool   // nothing is to be held any more
}

// keep has the program loaded, unless it is already or nothing is to be held any more.
func (h *wireHold) keep(policy splice.WirePolicy) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || h.release != nil {
		return nil
	}
	release, err := splice.KeepWire(policy)
	if err == nil {
		h.release = release
	}
	return err
}

// end lets it go, for good. Whoever loads it now is waited for.
func (h *wireHold) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over = true; h.release != nil {
		h.release()
		h.release = nil
	}
}
