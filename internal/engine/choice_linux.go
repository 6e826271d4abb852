package engine

import "sync/atomic"

const (
	// streamRead is the read, in bytes, from which splicing is cheaper than
	// copying. Measured: docs/engines.md.
	streamRead = 32 << 10
	// streamReads in a row make a stream.
	streamReads = 3
	// smallBurst is how few bytes between two pauses of the source say that
	// the stream is over, smallBursts how many times in a row. The distance to
	// streamRead keeps traffic between them from changing sides all the time.
	smallBurst  = 16 << 10
	smallBursts = 2
	// blindReads in a row, each with bytes where splice(2) saw none, mean that
	// splice(2) can't be used here. A few happen to anybody: the bytes came in
	// between.
	blindReads = 4
	// pipelessReads are made by copying before the next attempt to get a pipe.
	pipelessReads = 64
)

// A choice picks, for one direction and from the traffic seen, between copy
// and splice. The loop owns it; view can be read by anybody.
type choice struct {
	view      atomic.Uint32 // Kind<<8 | Why
	streaming bool          // splice now
	fixed     bool          // never splice (again)
	because   Why           // the reason for any choice, if not zero: why a named engine is not in use
	long      int8          // reads of streamRead or more, in a row
	low       int8          // small bursts, in a row
	blind     int8          // reads that found what splice had not seen, in a row
	pipeless  int8          // reads to make before asking for a pipe again
	burst     int           // bytes since the last pause
}

func (c *choice) init(k Kind, why Why) {
	c.fixed = k == Copy
	if c.fixed && why == WhyNoBytes {
		why = WhyRequested
	}
	c.set(false, why)
}

func (c *choice) set(streaming bool, why Why) {
	c.streaming = streaming
	if c.because != 0 {
		why = c.because
	}
	kind := Copy
	if streaming {
		kind = Splice
	}
	if v := uint32(kind)<<8 | uint32(why); v != c.view.Load() {
		c.view.Store(v)
	}
}

func (c *choice) current() (Kind, Why) {
	v := c.view.Load()
	return Kind(v >> 8), Why(v)
}

// copied notes a read of n bytes.
func (c *choice) copied(n int) {
	switch {
	case n == 0 || c.fixed:
		return
	case c.streaming:
		c.burst += n
		if c.blind++; c.blind >= blindReads {
			c.fixed = true
			c.set(false, WhySpliceBlind)
		}
		return
	case c.pipeless > 0:
		c.pipeless--
		return
	case n < streamRead:
		c.long = 0
		c.set(false, WhySmallMessages)
		return
	}
	if c.long++; c.long >= streamReads {
		c.long, c.low, c.blind, c.burst = 0, 0, 0, 0
		c.set(true, WhyStream)
	} else if c.view.Load() == uint32(Copy)<<8|uint32(WhyNoBytes) {
		c.set(false, WhySmallMessages)
	}
}

// spliced notes that splice(2) took n bytes.
func (c *choice) spliced(n int) {
	if n > 0 {
		c.blind = 0
		c.burst += n
	}
}

// pause notes that the source has nothing more for now.
func (c *choice) pause() {
	if !c.streaming {
		return
	}
	if c.burst >= smallBurst {
		c.low = 0
	} else if c.low++; c.low >= smallBursts {
		c.low = 0
		c.set(false, WhySmallMessages)
	}
	c.burst = 0
}

func (c *choice) noPipe() {
	c.pipeless = pipelessReads
	c.set(false, WhyPipeBudget)
}

func (c *choice) refused() {
	c.fixed = true
	c.set(false, WhyUnsupported)
}
