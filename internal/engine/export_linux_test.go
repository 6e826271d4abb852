package engine

import "time"

// SetSettle sets how long the sockets of a spliced pair stay: a test may want to do something
// meanwhile.
func (p *WirePolicy) SetSettle(d time.Duration) { p.settle = d }

// Forbid has a command of bpf(2) fail: see forbid.
var Forbid = forbid
