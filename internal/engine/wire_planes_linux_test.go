package engine

import (
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A plane is found whatever the others do with it: without it, a loop would let the kernel
// choose a local port, which can be that of a spliced flow. That connection had no answer, and
// its client a RST when the dial had timed out.
func TestWirePlaneIsFound(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	var r Reactor
	config := wire.Config{Entries: 16}
	plane, err := r.OpenWire(config)
	if err != nil {
		t.Fatal(err)
	}
	defer plane.Close()
	p := r.wire.of(config)
	p.mu.Lock() // another one looks for it, or has it opened
	defer p.mu.Unlock()
	if got, err := r.wire.get(&r, config); got != plane || err != nil {
		t.Errorf("got %p, %v, want %p", got, err, plane)
	}
}

// A program that is kept stays loaded beside one that nobody needs any more.
func TestKeepWire(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	var kept, other Reactor
	release, err := kept.KeepWire(WirePolicy{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.OpenWire(wire.Config{}); err != nil {
		t.Fatal(err)
	}
	loaded := func(r *Reactor) bool { return r.wire.of(wire.Config{}).alive() != nil }
	unloads := func(r *Reactor) {
		t.Helper()
		for deadline := time.Now().Add(patience); loaded(r); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it stays loaded")
			}
		}
	}
	unloads(&other)
	if !loaded(&kept) {
		t.Error("what was kept is gone too")
	}
	release()
	release()
	unloads(&kept)
}
