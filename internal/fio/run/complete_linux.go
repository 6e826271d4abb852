package run

import (
	"syscall"

	"github.com/spliced-io/spliced/internal/fio/data"
	"github.com/spliced-io/spliced/internal/fio/ioengine"
)

// fill makes the data of a write.
func (w *worker) fill(u *ioengine.Unit, now int64) {
	b := u.Buf[:u.Len]
	if w.verifier == nil {
		w.filler.Next(b, uint64(u.Offset), uint64(now))
		return
	}
	w.writes++
	u.Seed, u.Number = w.extra.Uint64(), w.writes
	w.verifier.Fill(b, data.Block{
		Offset: uint64(u.Block), Seed: u.Seed, Number: u.Number, Thread: w.number, Now: w.run.wall + now,
	})
}

// complete counts a finished unit, and checks it if it has to.
func (w *worker) complete(u *ioengine.Unit, now int64) error {
	dir := u.Dir
	moved := u.Size
	if u.Err != nil || u.Len > 0 && u.N == 0 {
		if dir == Write && w.verifier != nil {
			w.unwritten(u.Number)
		}
		if u.Err == syscall.EINTR && w.stopped() {
			return nil
		}
		if u.Err == nil && w.traits.Network && dir == Read {
			w.eof = true
			moved = int(u.Offset - u.Block)
			if moved == 0 {
				return nil
			}
			w.st.Dirs[dir].Short++
			w.account(u, moved, now)
			return nil
		}
		err := u.Err
		if err == nil {
			// Nothing moved and no error said: beyond the end for a read.
			if err = syscall.EIO; dir == Write {
				err = syscall.ENOSPC
			}
		}
		return w.fail(dir, u.File, u.Offset, err)
	}
	if u.Len == 0 {
		moved = int(u.Offset - u.Block) // up to the file's end
	}
	w.account(u, moved, now)
	if w.verifier == nil {
		return nil
	}
	switch {
	case dir == Read && !w.o.Writes() && w.o.DoVerify && moved == u.Size && !w.stateSkips(u.Number):
		return w.check(u, data.Known{})
	case dir == Write && w.verifies():
		w.remember(u)
	}
	return nil
}
