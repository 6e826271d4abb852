package splice

import "github.com/spliced-io/spliced/internal/engine"

// WirePolicy says when [EngineAuto] hands a session over to [EngineWire], and
// under which name spliced flows outlive the process.
type WirePolicy = engine.WirePolicy

// WireStats is a session's way to [EngineWire]: see [Stats].
type WireStats = engine.WireStats

// Wire lets EngineAuto hand sessions over to EngineWire, where this process
// may; the name of the instance is for both. A session on its way there can't
// be taken back: [Session.Stop] then ends it with a RST to both sides.
func Wire(p WirePolicy) Option { return func(o *options) { o.wire = p } }
