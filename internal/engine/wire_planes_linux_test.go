package engine

import (
	"testing"

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
