package stat

import "time"

// Directions.
const (
	Read = iota
	Write
	Trim
	Sync
	Directions = 3 // those that move data
)

// Names of the directions.
func Name(dir int) string { return [...]string{"read", "write", "trim", "sync"}[dir] }

// The bounds of the reported latency classes; the last one of the
// milliseconds is "and more".
const (
	ClassesNS = 10
	ClassesUS = 10
	ClassesMS = 12
)

// A Latency is one kind of latency of one direction, in nanoseconds. Hist is
// nil where no percentiles are wanted.
type Latency struct {
	Moments
	Hist *Hist
}

// Add counts a latency.
func (l *Latency) Add(ns uint64) {
	l.Moments.Add(ns)
	if l.Hist != nil {
		l.Hist[Bucket(ns)]++
	}
}

func (l *Latency) merge(o *Latency) {
	l.Moments.Merge(o.Moments)
	if o.Hist == nil {
		return
	}
	if l.Hist == nil {
		l.Hist = new(Hist)
	}
	l.Hist.Merge(o.Hist)
}

// A Dir is what happened in one direction.
type Dir struct {
	Bytes   uint64
	IOs     uint64
	Short   uint64
	Dropped uint64
	Runtime time.Duration

	Slat, Clat, Lat Latency
	BW, IOPS        Moments // samples in KiB/s and I/Os per second
}

func (d *Dir) merge(o *Dir) {
	d.Bytes += o.Bytes
	d.IOs += o.IOs
	d.Short += o.Short
	d.Dropped += o.Dropped
	d.Runtime = max(d.Runtime, o.Runtime)
	d.Slat.merge(&o.Slat)
	d.Clat.merge(&o.Clat)
	d.Lat.merge(&o.Lat)
	d.BW.Sum(o.BW)
	d.IOPS.Sum(o.IOPS)
}

// A Job is what a job, or a group of them, did.
type Job struct {
	Name        string
	Description string
	Group       int
	Members     int
	PID         int
	Error       int // errno of the first error
	Cause       string
	ErrorCount  uint64
	FirstError  int
	Continue    bool
	Started     time.Time

	Dirs     [Directions]Dir
	SyncIOs  uint64
	SyncLat  Latency
	Elapsed  time.Duration // wall clock of the measured phases
	User     time.Duration
	System   time.Duration
	Switches uint64
	MajFault uint64
	MinFault uint64

	Depth            [7]uint64 // by how many were on the way
	Submit, Complete [7]uint64
	Submits, Fetches uint64

	ClassNS [ClassesNS]uint64
	ClassUS [ClassesUS]uint64
	ClassMS [ClassesMS]uint64

	LatencyTarget  time.Duration
	LatencyWindow  time.Duration
	LatencyPercent float64
	LatencyDepth   int

	Steady *Steady // nil: not asked for
}

// DepthClass is the column of a queue depth: 1, 2, 4, 8, 16, 32, >=64.
func DepthClass(depth int) int {
	switch {
	case depth >= 64:
		return 6
	case depth >= 32:
		return 5
	case depth >= 16:
		return 4
	case depth >= 8:
		return 3
	case depth >= 4:
		return 2
	case depth >= 2:
		return 1
	}
	return 0
}

// BatchClass is the column of a batch: 0, up to 4, 8, 16, 32, 64, more.
func BatchClass(n int) int {
	switch {
	case n == 0:
		return 0
	case n <= 4:
		return 1
	case n <= 8:
		return 2
	case n <= 16:
		return 3
	case n <= 32:
		return 4
	case n <= 64:
		return 5
	}
	return 6
}

// Class counts a latency in its class.
func (j *Job) Class(ns uint64) {
	switch {
	case ns < 1000:
		j.ClassNS[class(ns)]++
	case ns < 1000_000:
		j.ClassUS[class(ns/1000)]++
	case ns >= 2000_000_000:
		j.ClassMS[11]++
	case ns >= 1000_000_000:
		j.ClassMS[10]++
	default:
		j.ClassMS[class(ns/1000_000)]++
	}
}

// class is the first of 2 4 10 20 50 100 250 500 750 1000 that v is not above.
func class(v uint64) int {
	switch {
	case v < 100:
		switch {
		case v < 2:
			return 0
		case v < 4:
			return 1
		case v < 10:
			return 2
		case v < 20:
			return 3
		case v < 50:
			return 4
		}
		return 5
	case v < 250:
		return 6
	case v < 500:
		return 7
	case v < 750:
		return 8
	}
	return 9
}

// Merge adds a job to a group.
func (j *Job) Merge(o *Job) {
	for d := range j.Dirs {
		j.Dirs[d].merge(&o.Dirs[d])
	}
	j.Members += o.Members
	j.SyncIOs += o.SyncIOs
	j.SyncLat.merge(&o.SyncLat)
	j.Elapsed += o.Elapsed
	j.User += o.User
	j.System += o.System
	j.Switches += o.Switches
	j.MajFault += o.MajFault
	j.MinFault += o.MinFault
	j.ErrorCount += o.ErrorCount
	j.Submits += o.Submits
	j.Fetches += o.Fetches
	if j.Error == 0 {
		j.Error, j.Cause = o.Error, o.Cause
	}
	if j.FirstError == 0 {
		j.FirstError = o.FirstError
	}
	add := func(to, from []uint64) {
		for i := range to {
			to[i] += from[i]
		}
	}
	add(j.Depth[:], o.Depth[:])
	add(j.Submit[:], o.Submit[:])
	add(j.Complete[:], o.Complete[:])
	add(j.ClassNS[:], o.ClassNS[:])
	add(j.ClassUS[:], o.ClassUS[:])
	add(j.ClassMS[:], o.ClassMS[:])
	j.LatencyDepth = max(j.LatencyDepth, o.LatencyDepth)
}

// Mix adds writes and trims to the reads, for unified_rw_reporting.
func (j *Job) Mix() {
	for d := Write; d < Directions; d++ {
		j.Dirs[Read].merge(&j.Dirs[d])
		j.Dirs[d] = Dir{}
	}
}
