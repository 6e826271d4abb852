// Package engine joins pairs of sockets: the contract of an engine, the event
// loops that drive it, and the choice of one.
package engine

import (
	"fmt"
	"time"
)

// Kind is a way of moving bytes.
type Kind uint8

// The engines, in the order of --engine's help.
const (
	Auto Kind = iota
	Copy
	Splice
	Sockmap
	Wire
)

var kindNames = [...]string{"auto", "copy", "splice", "sockmap", "wire"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("engine(%d)", uint8(k))
}

// MarshalText makes a Kind readable in JSON.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is the inverse.
func (k *Kind) UnmarshalText(text []byte) (err error) {
	*k, err = ParseKind(string(text))
	return err
}

// ParseKind is the inverse of String.
func ParseKind(name string) (Kind, error) {
	for k, n := range kindNames {
		if n == name {
			return Kind(k), nil
		}
	}
	return 0, fmt.Errorf("unknown engine %q: want auto, copy, splice, sockmap or wire", name)
}

// Why says why an engine is the one in use: a code for logs and metrics.
type Why uint8

// The reasons for an engine.
const (
	WhyNoBytes       Why = iota // nothing was moved so far
	WhyRequested                // named by the caller
	WhySmallMessages            // reads too small to be worth a pipe
	WhyStream                   // long reads: page references are cheaper
	WhyPipeBudget               // no pipe of a useful size is left for this user
	WhyUnsupported              // splice(2) refuses these sockets
	WhySpliceBlind              // splice(2) saw nothing where recv(2) found bytes
	WhyNoDescriptor             // one of the connections has no descriptor
	WhyNotLinux                 // this system has no splice(2)
	WhyCopiesAnyway             // this kernel's splice(2) copies pages
	WhyHandedOver               // a BPF program carries the packets

	// Why a pair was not handed over: the order of the refusals in package wire.
	WhyWireNotTCP
	WhyWireFamilies
	WhyWireOptions
	WhyWireSegmentSize
	WhyWireNoRoute
	WhyWireLinkLayer
	WhyWireFull
	WhyWireConflict
	WhyWireUnseen
	WhyWireBusy
	WhyWireEnded
	WhyWireLimited
	WhyWireDenied
	WhyWireBorrowed
	WhyWireBroken
	WhyWireBraked
	WhyWireSpent
	WhyWireTransparent
	WhyWireOwnRoute
	WhyWireDivided

	WhyTLS // a TLS session ends here, and the kernel has no part in it

	WhyRedirected // a BPF verdict program redirects the bytes

	// Why a pair is not redirected: the order of the refusals in package sockmap.
	WhySockmapNotTCP
	WhySockmapMPTCP
	WhySockmapNamespace
	WhySockmapClosing
	WhySockmapULP
	WhySockmapForeign
	WhySockmapFull
	WhySockmapLimited
	WhySockmapBraked
	WhySockmapBroken
)

var whyNames = [...]string{
	"no-bytes", "requested", "small-messages", "stream", "pipe-budget",
	"splice-refused", "splice-blind", "no-descriptor", "not-linux", "splice-copies", "handed-over",
	"wire-not-tcp", "wire-address-families", "wire-tcp-options", "wire-segment-size", "wire-no-route",
	"wire-link-layer", "wire-table-full", "wire-address-conflict", "wire-packets-unseen", "wire-busy",
	"wire-ended", "wire-max-bytes", "wire-denied", "wire-not-owned", "wire-refused-by-kernel",
	"wire-bandwidth", "wire-last-hop", "wire-transparent", "wire-own-route", "wire-fragments", "tls",
	"redirected",
	"sockmap-not-tcp", "sockmap-mptcp", "sockmap-network-namespace", "sockmap-closing", "sockmap-ulp", "sockmap-foreign",
	"sockmap-full", "sockmap-max-bytes", "sockmap-bandwidth", "sockmap-refused-by-kernel",
}

// WhyCount is how many reasons there are.
const WhyCount = len(whyNames)

func (w Why) String() string { return whyNames[w] }

// MarshalText makes a Why readable in JSON.
func (w Why) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// Reason says how a direction ended.
type Reason uint8

// The ends of a direction.
const (
	Running       Reason = iota // not ended yet
	EOF                         // the source sent a FIN, and it was forwarded
	Max                         // MaxBytes were delivered
	Idle                        // IdleTimeout
	HalfClosed                  // HalfCloseTimeout
	Lifetime                    // MaxLifetime
	Stopped                     // Stop, or the end of the context
	ResetBySource               // the source sent a RST, or vanished
	ResetByDrain                // the drain sent a RST, or vanished
	Failed                      // an error of this machine: see the error
)

var reasonNames = [...]string{
	"running", "eof", "max", "idle", "half-close-timeout", "lifetime", "stopped",
	"reset-by-source", "reset-by-drain", "error",
}

func (r Reason) String() string { return reasonNames[r] }

// MarshalText makes a Reason readable in JSON.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is the inverse.
func (r *Reason) UnmarshalText(text []byte) error {
	for i, name := range reasonNames {
		if name == string(text) {
			*r = Reason(i)
			return nil
		}
	}
	return fmt.Errorf("unknown reason %q", text)
}

// End is the outcome of one direction.
type End struct {
	Bytes       int64  // delivered to the drain's socket
	Reason      Reason // why it ended
	Err         error  // the error behind the reason; nil for EOF and Max
	Undelivered []byte // bytes that had left the source and could not be delivered, oldest first
}

// DirectionStats is a live view of one direction.
type DirectionStats struct {
	Bytes      int64  // delivered to the drain's socket
	Spliced    int64  // of these, moved as page references by splice(2)
	Redirected int64  // of these, never in user space: redirected by the engine sockmap
	Engine     Kind   // Copy, Splice, Sockmap or Wire: what moves bytes now
	Why        Why    // why that one
	Reason     Reason // Running until it has ended
}

// Stats is a live view of a session.
type Stats struct {
	AToB, BToA   DirectionStats
	Started      time.Time
	LastProgress time.Time  // when a byte last moved; Started if none has
	Wire         *WireStats // nil if the engine wire was not asked for
}

// Result is what is left of a session when it has ended.
type Result struct {
	AToB, BToA End
	Stats      Stats // the last, complete now
	Ended      time.Time
}

// Err is nil if both directions ended by a FIN, a limit of bytes or a stop;
// else it is the error of the direction that broke the session.
func (r Result) Err() error {
	// A reset is seen first by the direction that reads from it; the other
	// one only notices that its drain is gone.
	for _, e := range []End{r.AToB, r.BToA} {
		if e.Err != nil && e.Reason != ResetByDrain && e.Reason != Stopped {
			return e.Err
		}
	}
	for _, e := range []End{r.AToB, r.BToA} {
		if e.Reason == ResetByDrain {
			return e.Err
		}
	}
	return nil
}

// String is one line for a log.
func (r Result) String() string {
	return fmt.Sprintf("a to b: %d bytes, %s; b to a: %d bytes, %s; %s",
		r.AToB.Bytes, r.AToB.Reason, r.BToA.Bytes, r.BToA.Reason, r.Ended.Sub(r.Stats.Started).Round(time.Microsecond))
}

// Limits bound a session. The zero value bounds nothing.
type Limits struct {
	MaxAToB, MaxBToA int64
	Idle, HalfClose  time.Duration
	Lifetime         time.Duration

	RateAToB, RateBToA     int64      // bytes a second
	SharedAToB, SharedBToA *Bandwidth // with other sessions; nil is no limit

	Sockets *[2]SocketOptions // of a and of b; nil is the default
}

// LifetimeGrace is how long after MaxLifetime a session is over at the latest:
// so long a reader is given for what its socket was sent before.
const LifetimeGrace = 5 * time.Second
