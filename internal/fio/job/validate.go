package job

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Reads, Writes and Trims say what the job does.
func (o *Options) Reads() bool {
	switch o.RW {
	case "read", "randread", "readwrite", "randrw":
		return true
	}
	return false
}

// Writes says whether the job writes.
func (o *Options) Writes() bool { return strings.HasSuffix(o.RW, "write") || o.RW == "randrw" }

// Trims says whether the job trims.
func (o *Options) Trims() bool { return strings.Contains(o.RW, "trim") }

// Random says whether offsets are random.
func (o *Options) Random() bool { return strings.HasPrefix(o.RW, "rand") }

// validate finds what contradicts itself, and derives what follows.
func (o *Options) validate() error {
	if o.GtodReduce {
		o.NoLat, o.NoClat, o.NoSlat, o.NoBW = true, true, true, true
	}
	if o.DepthLow == 0 || o.DepthLow > o.IODepth {
		o.DepthLow = o.IODepth
	}
	o.DepthBatch = min(o.DepthBatch, o.IODepth)
	o.DepthCompleteMin = min(o.DepthCompleteMin, o.IODepth)
	o.DepthCompleteMax = min(max(o.DepthCompleteMax, o.DepthCompleteMin, 1), o.IODepth)
	if o.OpenFiles == 0 || o.OpenFiles > o.NrFiles {
		o.OpenFiles = o.NrFiles
	}
	if o.TimeBased && o.Runtime == 0 {
		return errors.New("time_based needs runtime")
	}
	if o.LatencyTarget > 0 && o.LatencyWindow == 0 {
		o.LatencyWindow = 5 * time.Second
	}
	if o.Verify == "pattern" || o.Verify == "pattern_hdr" {
		if o.VerifyPattern == nil {
			o.VerifyPattern = o.BufferPattern
		}
		if o.VerifyPattern == nil {
			return fmt.Errorf("verify=%s needs verify_pattern", o.Verify)
		}
	}
	if o.Verify != "" && o.VerifyInterval > 0 {
		for _, bs := range o.BS[:Trim] {
			if o.VerifyInterval < bs.Min && bs.Min%o.VerifyInterval != 0 {
				return fmt.Errorf("verify_interval=%d does not divide the block size %d", o.VerifyInterval, bs.Min)
			}
		}
	}
	for dir := range Directions {
		if o.Rate[dir] > 0 && o.RateIOPS[dir] > 0 {
			return errors.New("rate and rate_iops exclude each other")
		}
	}
	if err := o.validateSteady(); err != nil {
		return err
	}
	return o.validateMemory()
}

// validateMemory refuses what no machine could hold.
func (o *Options) validateMemory() error {
	var largest uint64
	for _, bs := range o.BS {
		largest = max(largest, bs.Max)
	}
	const most = 64 << 30
	if largest > most/uint64(o.IODepth) {
		return fmt.Errorf("iodepth=%d buffers of %d bytes are more than %d bytes", o.IODepth, largest, int64(most))
	}
	if o.Size.Bytes > math.MaxInt64/4 || o.IOSize.Bytes > math.MaxInt64 || o.Offset.Bytes > math.MaxInt64/4 {
		return errors.New("size or offset too large")
	}
	return nil
}
