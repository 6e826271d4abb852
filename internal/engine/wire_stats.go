package engine

import (
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
)

// A WirePolicy says when auto hands sessions over to the engine wire, which
// takes privileges. The zero value says never.
type WirePolicy struct {
	Upgrade    bool
	AfterBytes int64         // once that many bytes were moved, both directions together; 0 is WireAfterBytes
	AfterAge   time.Duration // or that long after the start, whichever comes first; 0 is WireAfterAge
	Instance   string        // flows outlive the process under this name; empty: they don't
	Root       string        // where they are pinned; empty is the usual place

	settle time.Duration // how long the sockets of a spliced pair stay, for tests; 0 is wireSettle
}

// When a hand-over is worth it, if nobody says so: docs/wire.md.
const (
	WireAfterBytes = 1 << 20
	WireAfterAge   = time.Second
)

// A Flow names a spliced pair by the addresses of its two connections.
type Flow = wire.Flow

// NoteSize is how many bytes the note of a session may have.
const NoteSize = wire.NoteSize

// ErrInstanceInUse means that another process has an instance.
var ErrInstanceInUse = wire.ErrInUse

// A TableID tells the table of an instance from all others of this machine. The zero value is
// that of none.
type TableID = wire.TableID

// WireStats is a session's way to the engine wire, and what the program has
// seen of it. Pairs are a's and b's packets.
type WireStats struct {
	Switched    bool          // it was handed over
	Attempts    int           // hand-overs begun
	Unseen      int           // of these, those that failed for want of packets of both sides; the others that did, for want of room
	Late        int           // segments that reached a socket when all went across already: the sockets had to deliver again
	Closed      time.Duration // for so long the windows were closed, to have room for both sides
	Refused     Why           // WhyNoBytes if it was not
	Returned    bool          // it was taken back: sockets carry it again
	Left        bool          // it goes on without this process
	Lost        bool          // at the hand-over: its sides did not fit, see [ErrHandOver]
	EndedByHand bool          // somebody has ended it from outside: spliced flows --end
	Delivered   [2]int64      // bytes that were carried by the program
	Packets     [2]uint64     // since the hand-over
	Retransmits [2]uint64     // of these, starting in what was seen before
	Errors      [2]uint64     // segments that could not be translated, and were dropped
	TooBig      [2]uint64     // segments, or bundles of them, that did not fit the interface that they were to leave by, and were dropped
	LastSeen    time.Time     // of a live session: the last packet of either side, if it moved nothing too; zero before the first
}
