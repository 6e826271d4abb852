package run

import (
	"errors"
	"fmt"
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

// cutOff says whether a unit ended because the job had to. What a peer got, or
// sent, until then counts.
func (w *worker) cutOff(u *ioengine.Unit, now int64) bool {
	if !(errors.Is(u.Err, syscall.EINTR) && w.stopped() || errors.Is(u.Err, syscall.ETIMEDOUT) && w.timedOut(now)) {
		return false
	}
	w.accountPart(u, now)
	return true
}

// accountPart counts what was moved of a block that a network job did not end.
func (w *worker) accountPart(u *ioengine.Unit, now int64) {
	if moved := int(u.Offset-u.Block) + u.N; w.traits.Network && moved > 0 {
		w.st.Dirs[u.Dir].Short++
		w.account(u, moved, now)
	}
}

// endedEarly is the error of a peer that has sent less than the job was told to
// receive: as far as anybody here can know, it has died.
func (w *worker) endedEarly(u *ioengine.Unit) error {
	o := w.o
	told := o.Size.Bytes > 0 || o.IOSize.Bytes > 0
	got := w.st.Dirs[Read].Bytes
	if !told || o.TimeBased || got >= w.target {
		return nil
	}
	return w.fail(Read, u.File, u.Offset, fmt.Errorf("the peer ended after %d of %d bytes: %w", got, w.target, syscall.EIO))
}

// complete counts a finished unit, and checks it if it has to.
func (w *worker) complete(u *ioengine.Unit, now int64) error {
	dir := u.Dir
	moved := u.Size
	if u.Err != nil || u.Len > 0 && u.N == 0 {
		if dir == Write && w.verifier != nil {
			w.unwritten(u.Number)
		}
		if w.cutOff(u, now) {
			return nil
		}
		if u.Err == nil && w.traits.Network && dir == Read {
			w.eof = true
			w.accountPart(u, now)
			return w.endedEarly(u)
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
