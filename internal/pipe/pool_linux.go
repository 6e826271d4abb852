package pipe

import "sync"

const (
	// want is the size asked for. Measured: docs/engines.md.
	want = 1 << 20
	// least is the smallest pipe worth having: the kernel's default. Below it
	// (an unprivileged user beyond pipe-user-pages-soft gets two pages) splice
	// costs more than copying.
	least = 64 << 10
	// most pipes are lent at once: 128 of 1 MiB hold at most 128 MiB of pages,
	// and use 256 descriptors.
	most = 128
	// spare pipes are kept for the next session.
	spare = 8
)

// A Pool lends pipes. The zero value is ready. It is safe for concurrent use.
type Pool struct {
	mu   sync.Mutex
	idle []*Pipe
	lent int
}

// Get returns an empty pipe, or nil when the budget is used up or the kernel
// grants none of a useful size: then the caller copies.
func (p *Pool) Get() *Pipe {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		pipe := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.lent++
		return pipe
	}
	if p.lent >= most {
		return nil
	}
	pipe, err := open(want)
	if err != nil {
		return nil
	}
	if pipe.Size < least {
		pipe.close()
		return nil
	}
	p.lent++
	return pipe
}

// Put takes a pipe back. One that still holds bytes is closed: its next
// borrower would deliver them.
func (p *Pool) Put(pipe *Pipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lent--
	if pipe.Held != 0 || len(p.idle) >= spare {
		pipe.close()
		return
	}
	p.idle = append(p.idle, pipe)
}

// Idle says whether pipes are open that nobody uses.
func (p *Pool) Idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle) > 0
}

// Trim closes the pipes that nobody uses and returns how many are lent.
func (p *Pool) Trim() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pipe := range p.idle {
		pipe.close()
	}
	p.idle = nil
	return p.lent
}
