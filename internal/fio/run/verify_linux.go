package run

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/fio/data"
	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/rnd"
)

// remember notes a block that was written, to be verified.
func (w *worker) remember(u *ioengine.Unit) {
	w.history = append(w.history, piece{
		file: int32(u.Tag), size: int32(u.Size), offset: u.Block, seed: u.Seed, number: u.Number,
	})
}

// pretend goes through the writes of an earlier run without making them.
func (w *worker) pretend() error {
	u := w.units[0]
	for !w.stopped() && !w.over(w.now()) {
		ok, err := w.next(u)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if u.Dir == Write && !w.stateSkips(u.Number) {
			w.remember(u)
		}
	}
	return nil
}

// verifyAll reads back all that was written.
func (w *worker) verifyAll() error {
	w.state('V')
	w.verifying = true
	w.phaseBegin()
	defer func() {
		w.phaseEnd()
		w.verifying = false
		w.history = w.history[:0]
	}()
	if err := w.settle(); err != nil {
		return err
	}
	pieces, err := w.latest(w.history)
	if err != nil {
		return err
	}
	return w.readBack(pieces)
}

// backlogDue says whether verify_backlog blocks wait to be verified.
func (w *worker) backlogDue() bool {
	return w.o.VerifyBacklog > 0 && uint64(len(w.history)) >= w.o.VerifyBacklog && w.verifies()
}

// verifyBacklog reads back what was written since the last time, all of it or
// verify_backlog_batch blocks.
func (w *worker) verifyBacklog() error {
	n := len(w.history)
	if b := w.o.VerifyBacklogBatch; b > 0 && b < uint64(n) {
		n = int(b)
	}
	from := w.now()
	pieces, err := w.latest(w.history)
	if err == nil {
		// A block that was written again is verified with its last write.
		cut := min(n, len(pieces))
		w.state('V')
		err = w.readBack(pieces[:cut])
		w.state(w.letter())
		w.history = append(w.history[:0], pieces[cut:]...)
	}
	if !w.o.Reads() {
		w.st.Dirs[Read].Runtime += time.Duration(w.now() - from)
	}
	return err
}

// latest drops the writes that a later one has overwritten, also in part.
// A bitmap of 512-byte sectors finds them; blocks that share a sector count as
// overlapping, which leaves fewer to verify and is never wrong.
func (w *worker) latest(all []piece) ([]piece, error) {
	if w.unique() {
		return all, nil
	}
	const sector = 512
	used := make([]*rnd.Map, len(w.cursors))
	keep := make([]bool, len(all))
	for i := len(all) - 1; i >= 0; i-- {
		p := all[i]
		c := w.cursors[p.file]
		if used[p.file] == nil {
			used[p.file] = rnd.NewMap(uint64(c.length+sector-1)/sector + 1)
		}
		from := uint64(p.offset-c.start) / sector
		to := uint64(p.offset-c.start+int64(p.size)+sector-1) / sector
		keep[i] = used[p.file].Take(from, to-from) == to-from
	}
	kept := all[:0]
	for i, p := range all {
		if keep[i] {
			kept = append(kept, p)
		}
	}
	return kept, nil
}

// unique says whether no block can have been written twice in this pass.
func (w *worker) unique() bool {
	if w.wraps() || w.o.RWCount > 1 || w.o.RWSkip != 0 {
		return false
	}
	for _, c := range w.cursors {
		if w.o.Random() && c.used == nil && c.lfsr == nil || w.o.PercentRandom[Write] != 100 && w.o.Random() {
			return false
		}
		if c.step != c.least || w.o.BS[Write].Min != w.o.BS[Write].Max {
			return false
		}
	}
	return true
}

// readBack reads pieces and checks them.
func (w *worker) readBack(pieces []piece) error {
	known := data.Known{Seed: !w.o.VerifyOnly, Number: !w.o.VerifyOnly}
	read := w.readBackSync
	if w.async != nil {
		read = w.readBackAsync
	}
	err := read(pieces, known)
	if e := w.checksDone(); err == nil {
		err = e
	}
	return err
}

func (w *worker) readBackSync(pieces []piece, known data.Known) error {
	u := w.units[0]
	for i := range pieces {
		if w.stopped() || w.verifyTimedOut() {
			return nil
		}
		if err := w.aim(u, &pieces[i]); err != nil {
			return err
		}
		u.Issue = w.now()
		u.Start = u.Issue
		w.st.Depth[0]++
		w.st.Submit[1]++
		w.st.Submits++
		w.st.Complete[1]++
		w.st.Fetches++
		w.engine.Do(u)
		for u.Err == nil && u.N > 0 && u.N < u.Len {
			if w.short(u); u.Len > 0 {
				w.engine.Do(u)
			}
		}
		if err := w.verified(u, known); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) verifyTimedOut() bool {
	return w.o.TimeBased && w.o.VerifyBacklog == 0 && w.timedOut(w.now())
}

func (w *worker) readBackAsync(pieces []piece, known data.Known) error {
	end := func(u *ioengine.Unit, _ int64) error { return w.verified(u, known) }
	for len(pieces) > 0 || w.inflight > 0 {
		for len(pieces) > 0 && len(w.free) > 0 && !w.stopped() {
			u := w.take()
			if err := w.aim(u, &pieces[0]); err != nil {
				w.release(u)
				return w.abort(err)
			}
			pieces = pieces[1:]
			u.Start = w.now()
			if err := w.queue(u); err != nil {
				return w.abort(err)
			}
		}
		if w.stopped() {
			pieces = nil
		}
		if w.inflight == 0 {
			break
		}
		if err := w.collect(1, end); err != nil {
			return w.abort(err)
		}
	}
	return nil
}

// aim points a unit at a piece.
func (w *worker) aim(u *ioengine.Unit, p *piece) error {
	c := w.cursors[p.file]
	u.Dir, u.File, u.Offset, u.Block = Read, c.file, p.offset, p.offset
	u.At, u.Len, u.Size, u.N, u.Err = 0, int(p.size), int(p.size), 0, nil
	u.Tag, u.Seed, u.Number = int(p.file), p.seed, p.number
	return w.openOne(c.file)
}

func (w *worker) verified(u *ioengine.Unit, known data.Known) error {
	if u.Err != nil || u.N == 0 {
		if u.Err == nil { // also if a part was there
			u.Err = errTruncated
		}
		return w.fail(Read, u.File, u.Offset, u.Err)
	}
	w.account(u, u.Size, w.now())
	return w.check(u, known)
}

// A checking is a block that was read, and what is known about it.
type checking struct {
	file  *ioengine.File
	block data.Block
	known data.Known
	read  []byte
}

// check compares a block that was read with what it should be, or leaves it to
// the checkers of verify_async and returns what they have found until now.
func (w *worker) check(u *ioengine.Unit, known data.Known) error {
	c := checking{u.File, data.Block{Offset: uint64(u.Block), Seed: u.Seed, Number: u.Number, Thread: w.number}, known, u.Buf[:u.Size]}
	if w.checkers != nil {
		w.checkers.add(c)
		return w.judgeFound()
	}
	if m := c.mismatch(w.verifier, w.o.VerifyDump); m != nil {
		return w.judge(m)
	}
	return nil
}

// mismatch is nil if the block is what it should be. It may change the block,
// of which it keeps a copy first where that is wanted.
func (c *checking) mismatch(v *data.Verifier, keep bool) *wrong {
	var got []byte
	if keep {
		got = bytes.Clone(c.read)
	}
	if err := v.Check(c.read, c.block, c.known); err != nil {
		return &wrong{c.file, c.block, c.known, got, err}
	}
	return nil
}

// A wrong is a block that is not what it should be.
type wrong struct {
	file  *ioengine.File
	block data.Block
	known data.Known
	got   []byte // nil: not kept
	err   error
}

// judge says what a mismatch means for the job.
func (w *worker) judge(m *wrong) error {
	if m.got != nil {
		w.dump(m)
	}
	err := w.fail(Read, m.file, int64(m.block.Offset), m.err)
	if err != nil && !w.o.VerifyFatal {
		// Without verify_fatal fio goes on to the end and fails then.
		w.noteError(err)
		w.complain(err)
		return nil
	}
	return err
}

// dump writes what was read and what was expected to files named after the
// block.
func (w *worker) dump(m *wrong) {
	stem := w.aux(fmt.Sprintf("%s.%d", filepath.Base(m.file.Name), m.block.Offset))
	err := os.WriteFile(stem+".received", m.got, 0o644)
	if err == nil && m.known.Seed {
		want := make([]byte, len(m.got))
		w.verifier.Fill(want, m.block)
		err = os.WriteFile(stem+".expected", want, 0o644)
	}
	if err != nil {
		w.run.say("job %q: verify_dump: %v", w.o.Name, err)
	}
}

// aux is where a log, dump or output of this name goes.
func (w *worker) aux(name string) string { return filepath.Join(w.run.conf.AuxPath, name) }

var errTruncated = fmt.Errorf("less than was written is there: %w", syscall.EIO)
