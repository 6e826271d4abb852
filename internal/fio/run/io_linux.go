package run

import (
	"errors"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/spliced-io/spliced/internal/fio/data"
	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/rnd"
	"github.com/spliced-io/spliced/internal/fio/stat"
)

func dirOf(name string) string { return filepath.Dir(name) }

// alignment is the first offset in m that is a multiple of align.
func alignment(m []byte, align int) int {
	return (align - int(uintptr(unsafe.Pointer(unsafe.SliceData(m)))%uintptr(align))) % align
}

// transfer makes a pass of I/O.
func (w *worker) transfer() (err error) {
	w.phaseBegin()
	defer func() { w.phaseEnd() }()
	if w.async != nil {
		err = w.asyncLoop()
	} else {
		err = w.syncLoop()
	}
	if errors.Is(err, errFull) {
		err = nil
	}
	return err
}

// syncLoop makes one I/O after the other. It does not allocate.
func (w *worker) syncLoop() error {
	u := w.units[0]
	now := w.now()
	for !w.stopped() && !w.over(now) {
		if w.unsyncedDue() {
			if err := w.syncFile(u); err != nil {
				return err
			}
		}
		ok, err := w.next(u)
		if err != nil || !ok {
			return err
		}
		if w.throttle.active {
			if !w.throttle.wait(w, u) {
				return nil
			}
			now = w.now()
		}
		u.Start = now
		if u.Dir == Write && (w.fillEach || w.verifier != nil) {
			now = w.now()
			u.Start = now
			w.fill(u, now)
		}
		issue := w.now()
		u.Issue = issue
		w.st.Depth[0]++
		w.st.Submit[1]++
		w.st.Submits++
		w.st.Complete[1]++
		w.st.Fetches++
		w.engine.Do(u)
		for u.Err == nil && u.N < u.Len && u.N > 0 {
			if w.short(u); u.Len == 0 {
				break
			}
			w.engine.Do(u)
		}
		now = w.now()
		if err := w.complete(u, now); err != nil {
			return err
		}
		if w.eof {
			return nil
		}
		if w.o.VerifyBacklog > 0 && w.verifies() && uint64(len(w.history)) >= w.o.VerifyBacklog {
			if err := w.verifyBacklog(); err != nil {
				return err
			}
			now = w.now()
		}
	}
	return nil
}

// short continues a transfer that moved only a part.
func (w *worker) short(u *ioengine.Unit) {
	if u.Dir <= Trim {
		w.st.Dirs[u.Dir].Short++
	}
	u.At += u.N
	u.Offset += int64(u.N)
	u.Len -= u.N
	u.N = 0
	if u.Offset >= u.File.Size && u.Dir == Read {
		u.Len = 0 // the file's end, not an error
	}
}

// asyncLoop keeps up to iodepth units on the way.
func (w *worker) asyncLoop() error {
	batch := 0
	for !w.stopped() {
		now := w.now()
		more := !w.over(now) && !w.eof
		for more && len(w.free) > 0 && w.inflight < w.depth.limit {
			if w.unsyncedDue() {
				if err := w.flushQueue(&batch); err != nil {
					return err
				}
				if err := w.syncFile(w.free[len(w.free)-1]); err != nil {
					return err
				}
			}
			u := w.free[len(w.free)-1]
			ok, err := w.next(u)
			if err != nil {
				return w.abort(err)
			}
			if !ok {
				more = false
				break
			}
			if w.throttle.active {
				if w.throttle.due(w, u) && w.inflight > 0 {
					// Waiting with I/O on the way would count the wait.
					if err := w.flushQueue(&batch); err != nil {
						return err
					}
				}
				if !w.throttle.wait(w, u) {
					more = false
					break
				}
			}
			w.free = w.free[:len(w.free)-1]
			if w.o.Serialize {
				for w.overlaps(u) {
					if err := w.reap(1, &batch); err != nil {
						return err
					}
				}
			}
			u.Start = w.now()
			if u.Dir == Write && (w.fillEach || w.verifier != nil) {
				w.fill(u, u.Start)
			}
			if err := w.queue(u, &batch); err != nil {
				return err
			}
			more = !w.over(u.Start)
		}
		if w.inflight == 0 {
			if !more || len(w.free) == 0 {
				break
			}
			continue
		}
		least := 1
		if !more {
			least = w.inflight
		} else if w.inflight > w.o.DepthLow {
			least = w.inflight - w.o.DepthLow + 1
		}
		if err := w.reap(max(least, min(w.o.DepthCompleteMin, w.inflight)), &batch); err != nil {
			return err
		}
		if w.o.VerifyBacklog > 0 && w.verifies() && uint64(len(w.history)) >= w.o.VerifyBacklog {
			if err := w.flushQueue(&batch); err != nil {
				return err
			}
			if err := w.verifyBacklog(); err != nil {
				return err
			}
		}
	}
	return w.flushQueue(&batch)
}

// queue hands a unit to the engine.
func (w *worker) queue(u *ioengine.Unit, batch *int) error {
	u.Busy = true
	u.Issue = w.now()
	for !w.async.Queue(u) {
		if err := w.reap(1, batch); err != nil {
			return err
		}
	}
	if !w.o.NoSlat && u.Dir <= Trim && !w.ramping {
		// Until the engine has it; with a batch, until it was queued.
		if *batch+1 >= w.o.DepthBatch {
			if err := w.commit(batch); err != nil {
				return err
			}
		}
		slat := w.now()
		w.lat.submitted(w, u, slat-u.Start, slat)
	} else if *batch+1 >= w.o.DepthBatch {
		if err := w.commit(batch); err != nil {
			return err
		}
	}
	if *batch > 0 || w.o.DepthBatch > 1 {
		*batch++
		if *batch >= w.o.DepthBatch {
			if err := w.commit(batch); err != nil {
				return err
			}
		}
	}
	w.inflight++
	w.st.Depth[stat.DepthClass(w.inflight)]++
	return nil
}

func (w *worker) commit(batch *int) error {
	w.st.Submits++
	w.st.Submit[stat.BatchClass(max(*batch, 1))]++
	*batch = 0
	return w.async.Commit()
}

// reap takes at least so many finished units.
func (w *worker) reap(least int, batch *int) error {
	if *batch > 0 {
		if err := w.commit(batch); err != nil {
			return err
		}
	}
	var err error
	w.finished, err = w.async.Wait(least, w.finished[:0])
	w.st.Fetches++
	w.st.Complete[stat.BatchClass(len(w.finished))]++
	if err != nil {
		return err
	}
	now := w.now()
	var first error
	for _, u := range w.finished {
		w.inflight--
		if u.Err == nil && u.N > 0 && u.N < u.Len {
			if w.short(u); u.Len > 0 {
				if err := w.requeue(u); err != nil && first == nil {
					first = err
				}
				continue
			}
		}
		u.Busy = false
		err := w.complete(u, now)
		w.free = append(w.free, u)
		if err != nil && first == nil {
			first = err
		}
	}
	if first != nil {
		return w.abort(first)
	}
	return nil
}

func (w *worker) requeue(u *ioengine.Unit) error {
	if !w.async.Queue(u) {
		return syscall.EAGAIN
	}
	w.inflight++
	return w.async.Commit()
}

// abort waits for what is on the way, so that its memory can be freed.
func (w *worker) abort(cause error) error {
	_ = w.async.Commit()
	for w.inflight > 0 {
		done, err := w.async.Wait(w.inflight, w.finished[:0])
		if err != nil || len(done) == 0 {
			break
		}
		for _, u := range done {
			w.inflight--
			u.Busy = false
			w.free = append(w.free, u)
		}
	}
	return cause
}

func (w *worker) flushQueue(batch *int) error {
	for w.inflight > 0 {
		if err := w.reap(w.inflight, batch); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) overlaps(u *ioengine.Unit) bool {
	for _, v := range w.units {
		if v != u && v.Busy && v.File == u.File && v.Block < u.Block+int64(u.Size) && u.Block < v.Block+int64(v.Size) {
			return true
		}
	}
	return false
}

// over says whether the pass has to end.
func (w *worker) over(now int64) bool {
	return w.bytesDone() || w.o.Runtime > 0 && now-w.begin >= int64(w.o.Runtime) || w.numberDone() || w.depth.finished
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
	if int(w.r.Below(100)) < w.o.MixRead {
		return Read
	}
	return Write
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

// pick chooses the file; nil: all are done.
func (w *worker) pick() *cursor {
	if len(w.cursors) == 1 {
		if w.cursors[0].finished {
			return nil
		}
		return w.cursors[0]
	}
	n := len(w.cursors)
	switch w.o.FileService {
	case "random":
		if w.turnLeft <= 0 || w.cursors[w.turn].finished {
			w.turn, w.turnLeft = int(w.r.Below(uint64(n))), w.o.FileServiceNr
		}
	case "zipf", "pareto", "normal", "gauss":
		if w.skewFiles == nil {
			kind := w.o.FileService
			if kind == "gauss" {
				kind = "normal"
			}
			w.skewFiles = rnd.NewSkewed(&w.r, kind, uint64(n), w.o.FileServiceArg, -1)
		}
		w.turn = int(w.skewFiles.Next())
	case "sequential":
	default:
		if w.turnLeft <= 0 {
			w.turn, w.turnLeft = (w.turn+1)%n, w.o.FileServiceNr
		}
	}
	w.turnLeft--
	for range n {
		if c := w.cursors[w.turn]; !c.finished {
			return c
		}
		w.turn = (w.turn + 1) % n
	}
	return nil
}

// openOne opens a file and closes another if openfiles says so.
func (w *worker) openOne(f *ioengine.File) error {
	if w.traits.Diskless {
		return nil
	}
	open := 0
	for _, g := range w.files {
		if g.FD >= 0 {
			open++
		}
	}
	if open >= w.o.OpenFiles && w.o.OpenFiles < len(w.files) {
		for _, g := range w.files {
			busy := false
			for _, u := range w.units {
				busy = busy || u.Busy && u.File == g
			}
			if g.FD >= 0 && !busy {
				_ = w.engine.Close(g)
				w.closeFile(g)
				break
			}
		}
	}
	return w.open(f)
}

// fill makes the data of a write.
func (w *worker) fill(u *ioengine.Unit, now int64) {
	b := u.Buf[:u.Len]
	if w.verifier == nil {
		w.filler.Next(b, uint64(u.Offset), uint64(now))
		return
	}
	w.writes++
	u.Seed, u.Number = w.r.Uint64(), w.writes
	w.verifier.Fill(b, data.Block{
		Offset: uint64(u.Block), Seed: u.Seed, Number: u.Number, Thread: w.number, Now: w.run.wall + now,
	})
}

func (w *worker) unsyncedDue() bool {
	if w.o.Fsync == 0 && w.o.Fdatasync == 0 || w.unsynced == 0 {
		return false
	}
	return w.o.Fsync > 0 && w.unsynced%w.o.Fsync == 0 || w.o.Fdatasync > 0 && w.unsynced%w.o.Fdatasync == 0
}

// syncFile makes an fsync or fdatasync of all files written to.
func (w *worker) syncFile(u *ioengine.Unit) error {
	dir := ioengine.Fdatasync
	if w.o.Fsync > 0 && w.unsynced%w.o.Fsync == 0 {
		dir = ioengine.Fsync
	}
	w.unsynced = 0
	if w.traits.Diskless {
		return nil
	}
	for _, f := range w.files {
		if f.FD < 0 {
			continue
		}
		u.Dir, u.File, u.Offset, u.Len, u.N, u.Err, u.At = dir, f, 0, 0, 0, nil, 0
		from := w.now()
		w.engine.Do(u)
		w.st.SyncIOs++
		w.st.SyncLat.Add(uint64(w.now() - from))
		if u.Err != nil {
			if err := w.fail(dir, f, 0, u.Err); err != nil {
				return err
			}
		}
	}
	return nil
}

// complete counts a finished unit, and checks it if it has to.
func (w *worker) complete(u *ioengine.Unit, now int64) error {
	dir := u.Dir
	moved := u.Size
	if u.Err != nil || u.Len > 0 && u.N == 0 {
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
	case dir == Read && !w.o.Writes() && w.o.DoVerify && moved == u.Size:
		return w.check(u, data.Known{})
	case dir == Write && w.verifies():
		w.remember(u)
	}
	return nil
}

// yield lets other goroutines of this process run: a job that never sleeps
// would otherwise hold its processor for 10 ms.
func (w *worker) yield() { runtime.Gosched() }

func (w *worker) letter() byte {
	random := w.o.Random()
	pick := func(a, b byte) byte {
		if random {
			return b
		}
		return a
	}
	switch {
	case w.o.Reads() && w.o.Writes():
		return pick('M', 'm')
	case w.o.Reads():
		return pick('R', 'r')
	case w.o.Writes() && !w.o.Trims():
		return pick('W', 'w')
	}
	return pick('D', 'd')
}
