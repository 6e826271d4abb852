package splice

import "github.com/spliced-io/spliced/internal/engine"

// Result is what is left of a session when it has ended.
type Result = engine.Result

// Stats is a live view of a session.
type Stats = engine.Stats

// DirectionStats is a live view of one direction: its bytes, the engine that
// moves them and why that one.
type DirectionStats = engine.DirectionStats

// End is the outcome of one direction.
type End = engine.End

// Reason says how a direction ended.
type Reason = engine.Reason

// Why says why an engine is the one in use.
type Why = engine.Why

// WhyCount is how many reasons there are.
const WhyCount = engine.WhyCount

// WhyWireDenied is why a process without privileges hands nothing over, WhyWireUnseen and
// WhyWireBusy are why an attempt to do so fails, and, after many, the last one.
const (
	WhyWireDenied = engine.WhyWireDenied
	WhyWireUnseen = engine.WhyWireUnseen
	WhyWireBusy   = engine.WhyWireBusy
)

// The ends of a direction.
const (
	Running       = engine.Running       // not ended yet
	EOF           = engine.EOF           // the source sent a FIN, and it was forwarded
	Max           = engine.Max           // MaxBytes were delivered
	Idle          = engine.Idle          // IdleTimeout
	HalfClosed    = engine.HalfClosed    // HalfCloseTimeout
	Lifetime      = engine.Lifetime      // MaxLifetime
	Stopped       = engine.Stopped       // Stop, or the end of the context
	ResetBySource = engine.ResetBySource // the source sent a RST, or vanished
	ResetByDrain  = engine.ResetByDrain  // the drain sent a RST, or vanished
	Failed        = engine.Failed        // an error of this machine: see End.Err
)
