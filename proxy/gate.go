package proxy

import (
	"context"
	"sync"
)

// A gate lets one through at a time. Who waits can give up, unlike at a mutex: whoever is in may be
// reading a file of a disk that does not answer. The zero value is open.
type gate struct {
	mu sync.Mutex
	in chan struct{} // has a token while somebody is
}

func (g *gate) tokens() chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.in == nil {
		g.in = make(chan struct{}, 1)
	}
	return g.in
}

// enter waits until nobody is in, or until ctx ends.
func (g *gate) enter(ctx context.Context) error {
	in := g.tokens()
	select {
	case in <- struct{}{}:
		return nil
	default:
	}
	select {
	case in <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g *gate) leave() { <-g.tokens() }
