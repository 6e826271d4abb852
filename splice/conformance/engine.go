//go:build linux

package conformance

import (
	"fmt"

	"github.com/spliced-io/spliced/splice"
)

// Pipe is the most that an engine may hold of one direction between the two
// sockets, in bytes: what a pipe has at its largest without privileges.
const Pipe = 1 << 20

// Engine is an engine under test.
type Engine struct {
	Name    string
	Options []splice.Option

	// Hold is the most that the engine may hold of one direction between the
	// two sockets, in bytes. 0 is Pipe.
	Hold int64
	// Stream says whether a direction between plain sockets went the fast way
	// after it carried a long stream. nil asks for nothing.
	Stream func(splice.DirectionStats) error
	// Small says the same after small messages only.
	Small func(splice.DirectionStats) error
	// Refused is the reason for which connections of a network are left to
	// another engine; empty where they are not. own says whose they are.
	Refused func(n Network, own bool) string
	// Reason is where the engine says that reason; nil is DirectionStats.Why.
	Reason func(splice.Stats) splice.Why
	// Handed says whether a session has been handed over to the engine, if that
	// takes it a while.
	Handed func(splice.Stats) bool
	early  bool // scenarios go on when it is
}

// Copy is the engine that reads and writes.
func Copy() Engine {
	never := func(d splice.DirectionStats) error {
		if d.Spliced != 0 || d.Engine != splice.EngineCopy || d.Why.String() != "requested" {
			return fmt.Errorf("want 0 bytes spliced, engine copy, requested; have %+v", d)
		}
		return nil
	}
	return Engine{
		Name:    "copy",
		Options: []splice.Option{splice.Use(splice.EngineCopy)},
		Stream:  never,
		Small:   never,
	}
}

// Splice is the engine that moves page references through a pipe.
func Splice() Engine {
	return Engine{
		Name:    "splice",
		Options: []splice.Option{splice.Use(splice.EngineSplice)},
		Stream: func(d splice.DirectionStats) error {
			return mostSpliced(d)
		},
		Small: small,
	}
}

// Auto is the engine that chooses.
func Auto() Engine {
	return Engine{
		Name: "auto",
		Stream: func(d splice.DirectionStats) error {
			switch d.Why.String() {
			case "splice-copies", "pipe-budget":
				return nil // a choice that says why is a good choice
			}
			return mostSpliced(d)
		},
		Small: small,
	}
}

// Sockmap is the engine that redirects inside BPF. It needs privileges.
func Sockmap() Engine {
	return Engine{
		Name:    "sockmap",
		Options: []splice.Option{splice.Use(splice.EngineSockmap)},
		// What a stop finds in the source's receive buffer, the program has had
		// already: it is delivered or returned.
		Hold: 16 << 20,
		Stream: func(d splice.DirectionStats) error {
			// A receiver that is slower than its sender has bytes copied.
			if d.Engine != splice.EngineSockmap || d.Why.String() != "redirected" || d.Redirected == 0 {
				return fmt.Errorf("want engine sockmap and bytes redirected, have %+v", d)
			}
			return nil
		},
		Small: func(d splice.DirectionStats) error {
			if d.Engine != splice.EngineSockmap || d.Redirected*10 < d.Bytes*9 {
				return fmt.Errorf("want 90 %% of the bytes redirected, have %+v", d)
			}
			return nil
		},
		Refused: func(n Network, _ bool) string {
			for _, l := range []Leg{n.A, n.B} {
				switch l {
				case Unix:
					return "sockmap-not-tcp"
				case MPTCP:
					return "sockmap-mptcp"
				}
			}
			return ""
		},
	}
}

// Wire is the engine that has the packets translated. It needs privileges.
func Wire() Engine {
	carried := func(d splice.DirectionStats) error {
		if d.Engine != splice.EngineWire || d.Why.String() != "handed-over" {
			return fmt.Errorf("want engine wire, handed over, have %+v", d)
		}
		return nil
	}
	return Engine{
		Name:    "wire",
		Options: []splice.Option{splice.Use(splice.EngineWire)},
		Stream:  carried,
		Small:   carried,
		Refused: func(n Network, own bool) string {
			switch {
			case !own:
				return "wire-not-owned"
			case n.A == Unix || n.B == Unix || n.A == MPTCP || n.B == MPTCP:
				return "wire-not-tcp"
			case n.A != n.B:
				return "wire-address-families"
			}
			return ""
		},
		Reason: func(s splice.Stats) splice.Why {
			if s.Wire == nil {
				return 0
			}
			return s.Wire.Refused
		},
		Handed: func(s splice.Stats) bool { return s.AToB.Engine == splice.EngineWire },
	}
}

// Early has each scenario begin when its session has been handed over, but for those
// that wait for a timeout, and those in which that can't be: the engine refuses the
// connections, one has ended, a limit of bytes is near, or bytes are there at the start,
// which the scenario has to receive.
func (e Engine) Early() Engine {
	e.Name += "-early"
	e.early = true
	return e
}

// Engines are the engines that need no privileges, in the order of their names
// in the command's help.
func Engines() []Engine { return []Engine{Auto(), Copy(), Splice()} }

// mostSpliced asks for the bytes, not for the engine of the moment: the tail of
// a stream may come in small pieces.
func mostSpliced(d splice.DirectionStats) error {
	if d.Spliced*10 < d.Bytes*9 {
		return fmt.Errorf("want 90 %% of the bytes spliced, have %+v", d)
	}
	return nil
}

func small(d splice.DirectionStats) error {
	switch d.Why.String() {
	case "small-messages", "splice-copies":
	default:
		return fmt.Errorf("want reason small-messages, have %+v", d)
	}
	if d.Engine != splice.EngineCopy || d.Spliced != 0 {
		return fmt.Errorf("want engine copy and 0 bytes spliced, have %+v", d)
	}
	return nil
}

// check calls f, Stream or Small, for a direction, unless the engine refuses n: then
// the reason has to be said.
func (e Engine) check(f func(splice.DirectionStats) error, w way) error {
	d := w.stats()
	if why := e.refused(w.place); why != "" {
		said := d.Why
		if e.Reason != nil {
			said = e.Reason(w.Session.Stats())
		}
		if said.String() != why || d.Engine == splice.EngineSockmap || d.Engine == splice.EngineWire {
			return fmt.Errorf("want another engine because of %s, have %+v, because of %v", why, d, said)
		}
		return nil
	}
	if f == nil {
		return nil
	}
	return f(d)
}

// refused is the reason for which the engine leaves a place to another.
func (e Engine) refused(p *place) string {
	if e.Refused == nil {
		return ""
	}
	return e.Refused(p.network, p.own)
}

func (e Engine) hold() int64 {
	if e.Hold == 0 {
		return Pipe
	}
	return e.Hold
}
