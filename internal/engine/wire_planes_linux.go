package engine

import (
	"sync"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
)

// wirePlanes are the reactor's, one for each instance and one for the sessions
// without.
type wirePlanes struct {
	mu  sync.Mutex
	all map[wire.Config]*wirePlane
}

type wirePlane struct {
	mu      sync.Mutex
	plane   *wire.Plane
	opening bool
	err     error
	failed  time.Time
}

// wireRetry is how long a failure to open a plane is believed.
const wireRetry = time.Minute

func (w *wirePlanes) of(config wire.Config) *wirePlane {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = make(map[wire.Config]*wirePlane)
	}
	p := w.all[config]
	if p == nil {
		p = new(wirePlane)
		w.all[config] = p
	}
	return p
}

// OpenWire makes sure that the program is loaded. The error says what is
// missing.
func (r *Reactor) OpenWire(config wire.Config) (*wire.Plane, error) {
	w := r.wire.of(config)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.plane != nil && w.plane.Alive() {
		return w.plane, nil
	}
	plane, err := wire.Open(config)
	w.plane, w.err, w.failed = plane, err, time.Now()
	return plane, err
}

// get returns the plane if there is one. Else it has one opened, unless that
// has failed lately.
func (w *wirePlanes) get(r *Reactor, config wire.Config) (*wire.Plane, error) {
	p := w.of(config)
	if !p.mu.TryLock() {
		return nil, nil // it is being opened
	}
	defer p.mu.Unlock()
	switch {
	case p.plane != nil && p.plane.Alive():
		return p.plane, nil
	case p.err != nil && time.Since(p.failed) < wireRetry:
		return nil, p.err
	case !p.opening:
		p.opening = true
		go func() { // loading takes milliseconds: too long for a loop
			_, _ = r.OpenWire(config)
			p.mu.Lock()
			p.opening = false
			p.mu.Unlock()
		}()
	}
	return nil, nil
}
