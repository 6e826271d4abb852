package run

import (
	"github.com/spliced-io/spliced/internal/fio/ioengine"
)

// over says whether the pass has to end.
func (w *worker) over(now int64) bool {
	return w.bytesDone() || w.o.Runtime > 0 && now-w.begin >= int64(w.o.Runtime) || w.numberDone() || w.depth.finished || w.stateOver()
}

// next chooses the next I/O. False: there is none in this pass.
func (w *worker) next(u *ioengine.Unit) (bool, error) {
	dir := w.direction()
	if dir == Write && len(w.pairs) > 0 {
		p := w.pairs[0]
		w.pairs = append(w.pairs[:0], w.pairs[1:]...)
		w.set(u, Write, p.cursor, p.offset, p.size)
		return true, nil
	}
	for range 2 {
		for range len(w.cursors) + 1 {
			c := w.pick()
			if c == nil {
				break
			}
			off, n, ok := c.next(dir, int64(w.size(dir)))
			if !ok {
				w.turnLeft = 0
				continue
			}
			if c.file.FD < 0 {
				if err := w.openOne(c.file); err != nil {
					return false, err
				}
			}
			w.set(u, dir, c, off, n)
			if dir == Trim && w.o.Writes() {
				w.pairs = append(w.pairs, trimmed{c, off, n})
			}
			return true, nil
		}
		if !w.wraps() || w.target == 0 {
			return false, nil
		}
		again := false
		for _, c := range w.cursors {
			if c.length >= c.least {
				c.reset()
				if !w.o.Direct {
					w.drop(c.file)
				}
				again = true
			}
		}
		if !again {
			return false, nil
		}
	}
	return false, nil
}

func (w *worker) set(u *ioengine.Unit, dir int, c *cursor, off, n int64) {
	if !w.traits.Network {
		// The last block of a limited transfer is a whole one, as in fio.
		u.Last = false
	}
	u.Dir, u.File, u.Offset, u.Block = dir, c.file, off, off
	u.At, u.Len, u.Size, u.N, u.Err = 0, int(n), int(n), 0, nil
	u.Tag = c.index
	w.issued[dir] += uint64(n)
	if dir != Write || !w.o.Trims() {
		w.ios++
	}
	if w.traits.Network {
		u.Last = w.bytesDone()
	}
	if dir == Write {
		w.unsynced++
	}
	if w.saved != nil {
		w.looked++
		u.Number = w.looked
	}
}

// direction of the next I/O.
func (w *worker) direction() int {
	switch w.o.RW {
	case "read", "randread":
		return Read
	case "write", "randwrite":
		return Write
	case "trim", "randtrim":
		return Trim
	case "trimwrite", "randtrimwrite":
		if len(w.pairs) > 0 {
			return Write
		}
		return Trim
	}
	dir := Write
	if int(w.r.Below(100)) < w.o.MixRead {
		dir = Read
	}
	if w.throttle.active && w.o.MixRead > 0 && w.o.MixRead < 100 {
		dir = w.throttle.turn(dir, w.now())
	}
	return dir
}

// size of the next block.
func (w *worker) size(dir int) uint64 {
	if w.o.BSIsSeqRand {
		dir = Read
		if w.o.Random() {
			dir = Write
		}
	}
	bs := w.o.BS[dir]
	if bs.Min == bs.Max {
		return bs.Min
	}
	if shares := w.o.BSSplit[dir]; len(shares) > 0 {
		pick := int(w.r.Below(100))
		for _, s := range shares {
			if pick -= s.Percent; pick < 0 {
				return s.Size
			}
		}
		return shares[len(shares)-1].Size
	}
	n := bs.Min + w.r.Below(bs.Max-bs.Min+1)
	if w.o.BSUnaligned {
		return n
	}
	return max(n/bs.Min*bs.Min, bs.Min)
}
