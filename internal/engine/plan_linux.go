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
// order of trial, and who is told; or Hand.
type Way struct {
	Plan     *Plan
	Lifetime time.Duration // takes the place of the plan's; 0 keeps that
	Targets  []Target      // without any the client is sent a RST
	Handler  Handler

	// Hand takes the connection's descriptor over, instead of everything else.
	// The session is nobody's then.
	Hand func(fd int, client netip.AddrPort)
}
