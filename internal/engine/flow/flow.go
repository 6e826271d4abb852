// Package flow is what the engine packages and the event loop say to each
// other about one direction of a session.
package flow

// Status says why a step ended.
type Status uint8

const (
	// More: the step did all it was asked to, and there may be more to do.
	More Status = iota
	// SourceEmpty: the source has nothing to read now. The step holds nothing.
	SourceEmpty
	// SourceShort: the source gave less than was asked for, so it had nothing
	// left at that moment. The step holds nothing.
	SourceShort
	// SourceEnd: the source's FIN was read. The step holds nothing.
	SourceEnd
	// DrainFull: the drain takes nothing now, and the step holds bytes for it.
	DrainFull
	// NoPipe: no pipe is to be had. Nothing was moved.
	NoPipe
	// Refused: the kernel can't do this with these descriptors. What the step
	// holds has to go another way.
	Refused
	// SourceFailed: reading failed. The step holds nothing.
	SourceFailed
	// DrainFailed: writing failed. What the step holds can't be delivered.
	DrainFailed
)

// A Step is the outcome of moving some bytes of one direction.
type Step struct {
	In     int    // bytes taken from the source
	Out    int    // bytes the drain's socket has accepted
	Status Status // why the step ended
	Err    error  // the errno of SourceFailed and DrainFailed
}
