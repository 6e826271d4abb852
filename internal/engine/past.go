package engine

import "time"

// A Past is what a session has behind it that goes on as another one, in
// another process as a rule: what it has counted, and the limits that still
// hold, with what is left of their time. The bytes that are on their way are not
// in it: see [End.Undelivered].
type Past struct {
	AToB, BToA               PastDirection
	Idle, HalfClose, MaxLife time.Duration // the limits; 0 is none
	Age                      time.Duration // since the start
	Quiet                    time.Duration // since a byte or a FIN last moved

	// BrokenA and BrokenB are the errors (errnos) that a and b have reported
	// before everything that came from them was delivered; 0 is none.
	BrokenA, BrokenB int
}

// A PastDirection is one direction of a [Past].
type PastDirection struct {
	Bytes      int64  // as [DirectionStats.Bytes]
	Spliced    int64  // of these
	Redirected int64  // of these
	Max        int64  // the limit of bytes; 0 is none
	Rate       int64  // bytes a second; 0 is no limit
	Reason     Reason // Running: it goes on
}
