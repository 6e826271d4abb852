// Package pipe lends pipes to sessions that have bytes on the way, keeps an
// exact account of what is in them, and stays within what the kernel grants.
package pipe

import (
	"fmt"

	"github.com/spliced-io/spliced/internal/sys"
)

// A Pipe carries page references from one socket to another. Its fields
// belong to whoever borrowed it.
type Pipe struct {
	R, W int // descriptors
	Size int // bytes, as granted; GRO packets can make Held larger
	Held int // bytes inside
}

func open(size int) (*Pipe, error) {
	r, w, err := sys.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	p := &Pipe{R: r, W: w}
	if p.Size, err = sys.SetPipeSize(w, size); err == nil {
		return p, nil
	}
	// EPERM: over the user's allowance. The kernel's own choice may still do:
	// the pool decides.
	if p.Size, err = sys.PipeSize(w); err != nil {
		p.close()
		return nil, fmt.Errorf("pipe size: %w", err)
	}
	return p, nil
}

func (p *Pipe) close() {
	_ = sys.Close(p.R)
	_ = sys.Close(p.W)
}

// Drain reads out what is inside, so that it can be given back to the caller.
func (p *Pipe) Drain() ([]byte, error) {
	b := make([]byte, p.Held)
	n := 0
	for n < len(b) {
		m, err := sys.Read(p.R, b[n:])
		if err != nil || m == 0 {
			return b[:n], fmt.Errorf("read %d bytes back from a pipe: %w", len(b)-n, err)
		}
		n += m
	}
	p.Held = 0
	return b, nil
}
