package splice

import "github.com/spliced-io/spliced/internal/engine"

// WirePolicy says when [EngineAuto] hands a session over to [EngineWire], and
// under which name spliced flows outlive the process.
type WirePolicy = engine.WirePolicy

// WireStats is a session's way to [EngineWire]: see [Stats].
type WireStats = engine.WireStats

// WireAfterBytes and WireAfterAge are when a hand-over is worth it, if a
// [WirePolicy] does not say so.
const (
	WireAfterBytes = engine.WireAfterBytes
	WireAfterAge   = engine.WireAfterAge
)

// Wire lets EngineAuto hand sessions over to EngineWire, where this process may
// and the session owns its connections ([Own], [Forward]); the name of the
// instance is for EngineWire too. [Session.Stop] takes them back, open and
// usable; options that were set on the sockets are not restored.
func Wire(p WirePolicy) Option { return func(o *options) { o.wire = p } }

// A Flow names a session that [EngineWire] carries by the addresses of its two connections.
type Flow = engine.Flow

// NoteSize is how many bytes a [Note] may have.
const NoteSize = engine.NoteSize

// ErrInstanceInUse means that another process has an instance.
var ErrInstanceInUse = engine.ErrInstanceInUse

// A WireTable tells the table of an instance from all others of this machine. The zero value is
// that of none.
type WireTable = engine.TableID

// An Adoption says what is to become of the flows of an instance: see [AdoptWire].
type Adoption struct {
	// Lives says that the process which has had the instance lives: it has let go of it, with
	// [LeaveWire], and Except are the flows that are its own yet. They, and what it may
	// have begun, are left alone: another AdoptWire, once it has ended, adopts or removes
	// what is left of them.
	Lives  bool
	Except []Flow
	// Accepted is told of each flow and returns who hears of its end; Connected and Failed of
	// that are not called. The [Past] is what [Session.Flow] has said of it, nil if nobody
	// knows. The session must not be used before AdoptWire has returned.
	Accepted func(s *Session, f Flow) (Handler, *Past)
}
