package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
)

// wirePlanes are the reactor's, one for each instance and one for the sessions
// without.
type wirePlanes struct {
	mu  sync.Mutex
	all map[wire.Config]*wirePlane

	reserved wire.Reserved // ports of another process's flows
}

type wirePlane struct {
	plane atomic.Pointer[wire.Plane] // the last that was opened; nil before

	mu      sync.Mutex // held while one is being opened
	opening bool
	left    bool // to another process: none is opened until this one takes it again
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

// alive returns the plane, or nil if there is none: then there are no flows either. It
// waits for nobody.
func (p *wirePlane) alive() *wire.Plane {
	if plane := p.plane.Load(); plane != nil && plane.Alive() {
		return plane
	}
	return nil
}

// each calls f for each plane that there is.
func (w *wirePlanes) each(f func(*wire.Plane)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.all {
		if plane := p.alive(); plane != nil {
			f(plane)
		}
	}
}

// OpenWire makes sure that the program is loaded. The error says what is
// missing. Of an instance that was left to another process there is no plane, and no error.
func (r *Reactor) OpenWire(config wire.Config) (*wire.Plane, error) {
	w := r.wire.of(config)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left {
		return w.alive(), nil
	}
	return w.open(config, wire.Open)
}

// KeepWire has the program loaded, and kept so until release is called, though no session needs
// it. That of an instance stays anyway.
func (r *Reactor) KeepWire(policy WirePolicy) (release func(), err error) {
	for {
		plane, err := r.OpenWire(policy.config())
		if err != nil || plane == nil || policy.Instance != "" {
			return func() {}, err
		}
		if release, ok := plane.Keep(); ok {
			return release, nil
		}
	}
}

// takeWire is OpenWire also if the instance was left.
func (r *Reactor) takeWire(config wire.Config, open func(wire.Config) (*wire.Plane, error)) (*wire.Plane, error) {
	w := r.wire.of(config)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left = false
	return w.open(config, open)
}

// open returns the plane, opened if it has to be. w.mu is held.
func (w *wirePlane) open(config wire.Config, open func(wire.Config) (*wire.Plane, error)) (*wire.Plane, error) {
	if plane := w.alive(); plane != nil {
		return plane, nil
	}
	plane, err := open(config)
	w.plane.Store(plane)
	w.err, w.failed = err, time.Now()
	return plane, err
}

// get returns the plane if there is one. Else it has one opened, unless that
// has failed lately.
func (w *wirePlanes) get(r *Reactor, config wire.Config) (*wire.Plane, error) {
	p := w.of(config)
	if plane := p.alive(); plane != nil {
		return plane, nil
	}
	if !p.mu.TryLock() {
		return nil, nil // it is being opened
	}
	defer p.mu.Unlock()
	if plane := p.alive(); plane != nil {
		return plane, nil // since then
	}
	switch {
	case p.left:
		return nil, nil
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
