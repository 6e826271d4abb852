package engine

import (
	"sync"

	"github.com/spliced-io/spliced/internal/engine/sockmap"
)

// sockmapPlane is the reactor's plane: open while sessions hold it, and closed
// with the last event loop.
type sockmapPlane struct {
	mu    sync.Mutex
	plane *sockmap.Plane
	users int
}

// OpenSockmap makes sure that the program is loaded. The error says what is
// missing.
func (r *Reactor) OpenSockmap() error {
	_, err := r.sockmap.hold(r.SockmapPairs)
	if err == nil {
		r.sockmap.release()
	}
	return err
}

func (p *sockmapPlane) hold(pairs uint32) (*sockmap.Plane, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.plane == nil {
		plane, err := sockmap.Open(pairs)
		if err != nil {
			return nil, err
		}
		p.plane = plane
	}
	p.users++
	return p.plane, nil
}

func (p *sockmapPlane) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users--
}

// trim closes a plane that nobody holds.
func (p *sockmapPlane) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users == 0 && p.plane != nil {
		p.plane.Close()
		p.plane = nil
	}
}
