package run

import (
	"math"

	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/fio/rnd"
)

// A cursor chooses the offsets of a job in one file: its region is
// [start, start+length).
type cursor struct {
	o      *job.Options
	file   *ioengine.File
	index  int
	start  int64
	length int64
	least  int64 // smallest block

	last   [job.Directions]int64 // next sequential offset, from start
	step   int64                 // alignment of random offsets
	blocks uint64
	used   *rnd.Map
	lfsr   *rnd.LFSR
	skewed *rnd.Skewed
	drawn  uint64 // of a sequence
	r      *rnd.Rand
	passes uint64

	hold     int   // how many more I/Os follow sequentially (rw=randread:N)
	holdAt   int64 // the offset they stay at (rw_sequencer=identical)
	finished bool
}

// mostMap is the memory that a map of blocks may take; above it random
// offsets may repeat, as with norandommap, if softrandommap allows it.
const mostMap = 1 << 30

func newCursor(o *job.Options, f *ioengine.File, index int, r *rnd.Rand) *cursor {
	c := &cursor{o: o, file: f, index: index, r: r, least: math.MaxInt64}
	for dir, bs := range o.BS {
		if dirUsed(o, dir) {
			c.least = min(c.least, int64(bs.Min))
		}
	}
	return c
}

func dirUsed(o *job.Options, dir int) bool {
	switch dir {
	case job.Read:
		return o.Reads()
	case job.Write:
		return o.Writes()
	}
	return o.Trims()
}

// region sets where the I/O goes, and starts anew.
func (c *cursor) region(start, length int64) bool {
	c.start, c.length = start, length
	c.step = c.least
	if !c.o.Random() || c.length < c.least {
		c.reset()
		return true
	}
	for dir, ba := range c.o.BlockAlign {
		if ba > 0 && dirUsed(c.o, dir) {
			c.step = int64(ba)
		}
	}
	c.blocks = uint64((c.length-c.least)/c.step) + 1
	switch {
	case c.o.Dist.Kind == "zipf" || c.o.Dist.Kind == "pareto" || c.o.Dist.Kind == "normal":
		c.skewed = rnd.NewSkewed(c.r, c.o.Dist.Kind, c.blocks, c.o.Dist.Theta, c.o.Dist.Center)
	case c.o.Dist.Kind != "random":
	case c.o.Generator == "lfsr" && c.fixedBlocks():
		c.lfsr = rnd.NewLFSR(c.blocks, c.r.Uint64())
	case c.o.NoRandomMap:
	case rnd.Bytes(c.blocks) > mostMap:
		if !c.o.SoftRandomMap {
			return false
		}
	default:
		c.used = rnd.NewMap(c.blocks)
	}
	c.reset()
	return true
}

// fixedBlocks: an LFSR can't skip what a larger block has covered.
func (c *cursor) fixedBlocks() bool {
	for dir, bs := range c.o.BS {
		if dirUsed(c.o, dir) && bs.Min != bs.Max {
			return false
		}
	}
	return true
}

// reset starts another pass over the region.
func (c *cursor) reset() {
	c.passes++
	c.finished = c.length < c.least
	c.hold, c.drawn = 0, 0
	for dir := range c.last {
		c.last[dir] = 0
		if c.o.RWSkip < 0 {
			c.last[dir] = c.length - c.least
		}
	}
	if c.used != nil {
		c.used.Reset()
	}
	if c.lfsr != nil {
		c.lfsr.Reset(c.r.Uint64())
	}
}

// next returns where the next I/O of up to size bytes goes and how long it may
// be. False: the region is done.
func (c *cursor) next(dir int, size int64) (off, n int64, ok bool) {
	if c.finished {
		return 0, 0, false
	}
	random := c.o.Random()
	if !random || c.o.PercentRandom[dir] < 100 && int(c.r.Below(100)) >= c.o.PercentRandom[dir] {
		off, n, ok = c.sequential(dir, size)
	}
	if random && !ok { // also where the sequence has come to the end of the region
		off, n, ok = c.random(dir, size)
	}
	if !ok {
		c.finished = true
	}
	return off + c.start, n, ok
}

func (c *cursor) sequential(dir int, size int64) (int64, int64, bool) {
	off := c.last[dir]
	if off < 0 || off >= c.length {
		return 0, 0, false
	}
	n := c.fit(off, size, dir)
	if n == 0 {
		return 0, 0, false
	}
	switch skip := c.o.RWSkip; {
	case skip >= 0:
		c.last[dir] = off + n + skip
		// Where only the hole reaches beyond the end, fio goes on at the
		// beginning, until as much as the size has been moved.
		if skip > 0 && off+n < c.length && c.last[dir] >= c.length {
			c.last[dir] = 0
		}
	case -skip > n:
		if c.last[dir] = off + skip; c.last[dir] < 0 && off > 0 {
			c.last[dir] = c.length - c.least
		}
	default:
		c.last[dir] = off - n // backwards, block by block
	}
	return off, n, true
}

// fit shortens a block at the end of the region: to the smallest one, or by
// bs_unaligned to any length.
func (c *cursor) fit(off, size int64, dir int) int64 {
	left := c.length - off
	switch {
	case size <= left:
		return size
	case c.o.BSUnaligned:
		return left
	}
	if least := int64(c.o.BS[dir].Min); least <= left {
		return left / least * least
	}
	return 0
}

func (c *cursor) random(dir int, size int64) (int64, int64, bool) {
	if c.hold > 0 {
		c.hold--
		if c.o.RWSequencer == "identical" {
			return c.holdAt, c.fit(c.holdAt, size, dir), true
		}
		off, n, ok := c.sequential(dir, size)
		if ok {
			return off, c.take(off, n), true
		}
	}
	block, ok := c.draw(dir)
	if !ok {
		return 0, 0, false
	}
	off := int64(block) * c.step
	n := c.fit(off, size, dir)
	if n == 0 {
		return 0, 0, false
	}
	n = c.take(off, n)
	c.hold, c.holdAt = c.o.RWCount-1, off
	c.last[dir] = off + n
	return off, n, true
}

// take marks blocks as used and shortens the I/O where the next one is used
// already.
func (c *cursor) take(off, n int64) int64 {
	if c.used == nil {
		return n
	}
	want := uint64((n + c.step - 1) / c.step)
	got := c.used.Take(uint64(off/c.step), min(want, c.blocks-uint64(off/c.step)))
	if got == 0 || got == want || uint64(off/c.step)+got == c.blocks {
		return n
	}
	return min(n, int64(got)*c.step)
}

func (c *cursor) draw(dir int) (uint64, bool) {
	switch {
	case c.lfsr != nil:
		return c.lfsr.Next()
	case c.skewed != nil:
		return c.skewed.Next(), true
	case c.o.Dist.Kind == "zoned" || c.o.Dist.Kind == "zoned_abs":
		return c.zoned(dir), true
	case c.o.Dist.Kind == "sequence":
		return c.inSequence()
	case c.used != nil:
		return c.used.NextFree(c.r.Below(c.blocks))
	}
	return c.r.Below(c.blocks), true
}

// inSequence repeats the blocks named, or with random_sequence_stride their
// pattern, each time as many blocks further on as there are in it. False: the
// next one is beyond the region.
func (c *cursor) inSequence() (uint64, bool) {
	list := c.o.Dist.Blocks
	n := uint64(len(list))
	block := list[c.drawn%n]
	if c.o.SeqStride {
		block += c.drawn / n * n
	}
	c.drawn++
	return block, block < c.blocks
}

func (c *cursor) zoned(dir int) uint64 {
	zones := c.o.Dist.Zones[dir]
	pick := int(c.r.Below(100))
	var from uint64
	for _, z := range zones {
		size := z.Size / uint64(c.step)
		if c.o.Dist.Kind == "zoned" {
			size = c.blocks * z.Size / 100
		}
		if pick -= z.Access; pick < 0 {
			if from >= c.blocks {
				break
			}
			return from + c.r.Below(max(min(size, c.blocks-from), 1))
		}
		from += size
	}
	return c.r.Below(c.blocks)
}
