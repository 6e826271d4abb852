package stat

import "time"

// Steady is what the search for a steady state found.
type Steady struct {
	Criterion string // as the option says it
	Percent   bool
	Duration  time.Duration
	Attained  bool
	Value     float64 // of the criterion over the last window
	Deviation float64 // largest distance from the mean
	Slope     float64 // from one measurement to the next

	// The measurements of the last window: KiB/s, I/Os per second, mean ns.
	BW, IOPS, Lat []uint64
}
