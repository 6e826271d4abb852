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
	// another engine; empty where they are not.
	Refused func(Network) string
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
		Refused: func(n Network) string {
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

// check calls f, Stream or Small, unless the engine refuses n: then the reason
// has to be said.
func (e Engine) check(f func(splice.DirectionStats) error, n Network, d splice.DirectionStats) error {
	if e.Refused != nil {
		if why := e.Refused(n); why != "" {
			if d.Why.String() != why || d.Engine == splice.EngineSockmap {
				return fmt.Errorf("want another engine because of %s, have %+v", why, d)
			}
			return nil
		}
	}
	if f == nil {
		return nil
	}
	return f(d)
}

func (e Engine) hold() int64 {
	if e.Hold == 0 {
		return Pipe
	}
	return e.Hold
}
