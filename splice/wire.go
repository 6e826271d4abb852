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

// WireCapabilities are what a process needs for [EngineWire] (capabilities(7)).
func WireCapabilities() []string {
	return []string{"CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON", "CAP_NET_RAW"}
}
