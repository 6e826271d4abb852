package engine

import (
	"net/netip"
	"time"
)

// A Plan says how accepted connections are carried: one is shared by all that
// are treated alike, and never changed. See [Reactor.Plan].
type Plan struct {
	Kind    Kind
	Limits  Limits
	Wire    WirePolicy
	Timeout time.Duration // for connecting to each target

	kind Kind // as chosen for this kernel
	why  Why
}

// Plan makes p ready for use.
func (r *Reactor) Plan(p Plan) (*Plan, error) {
	p.kind, p.why = r.choose(p.Kind)
	if p.Kind == Sockmap {
		if err := r.OpenSockmap(); err != nil {
			return nil, err
		}
	}
	if p.Kind == Wire {
		if _, err := r.OpenWire(p.Wire.config()); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// A Way is what becomes of one accepted connection: a plan, the targets in the
// order of trial, and who is told; or Hold.
type Way struct {
	Plan     *Plan
	Lifetime time.Duration // takes the place of the plan's; 0 keeps that
	Targets  []Target      // without any the client is sent a RST
	Handler  Handler
	Dialing  func(local netip.AddrPort) // see package splice; nil is nobody
	Trying   func(target int) bool      // see package splice; nil is every one

	// Hold takes the connection's descriptor over, instead of everything else:
	// until its way is known, or for good. The session is another's then.
	Hold func(Held)
}

// Held is an accepted connection whose way is not known yet. Its descriptor is
// its holder's, until Go or for good.
type Held struct {
	FD       int
	Client   netip.AddrPort
	acceptor *Acceptor
	loop     *loop
	seat     int32 // in the loop, if it listens
	seated   bool
}

// Go begins a session that takes the way, on the event loop that has accepted the
// connection if that still runs. It may have ended before Go returns. After an error
// the descriptor is still the holder's.
func (h *Held) Go(way Way) (*Session, error) {
	h.Deafen()
	s, r := &Session{own: true, loop: h.loop}, h.loop.reactor
	h.acceptor.lead(s, h.FD, h.Client, way)
	for {
		s.started, s.startedAt = time.Now(), r.clock()
		if s.loop.post(command{what: join, s: s}) {
			return s, nil
		}
		l, err := r.loop()
		if err != nil {
			return nil, err
		}
		s.loop = l
	}
}
