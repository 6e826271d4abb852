package run

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spliced-io/spliced/internal/fio/data"
	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/fio/rnd"
	"github.com/spliced-io/spliced/internal/fio/stat"
	"github.com/spliced-io/spliced/internal/sys"
)

// A worker is one clone of a job. All its fields but live belong to the
// goroutine that runs it.
type worker struct {
	o      *job.Options
	traits ioengine.Traits
	clone  int
	number int // of all workers, from 1
	wave   int // stonewalls before it
	run    *Run

	engine  ioengine.Engine
	async   ioengine.Async // nil: one I/O at a time
	files   []*ioengine.File
	cursors []*cursor
	made    []string // files that were not there before they were laid out

	r          rnd.Rand // order and sizes: a job that only verifies draws the same
	extra      rnd.Rand // contents, pauses
	filler     *data.Filler
	fillEach   bool
	verifier   *data.Verifier
	checkers   *checkers // nil: the job checks itself
	units      []*ioengine.Unit
	free       []*ioengine.Unit
	finished   []*ioengine.Unit
	inflight   int
	batch      int // queued and not handed to the kernel yet
	memory     []byte
	locked     []byte // lockmem
	st         *stat.Job
	lat        latencies
	history    []piece
	writes     uint64 // numbers the blocks for verify
	unsynced   int
	turn       int // of file_service_type=roundrobin
	turnLeft   int
	saved      *verifyState // nil: none was loaded
	looked     uint64       // at writes that it knows of
	unfinished []uint64     // numbers of writes that failed
	forgotten  bool         // there were more than fit there
	complaints int          // errors of a job that goes on
	steady     *stat.Steady // nil: not asked for
	pairs      []trimmed    // trimwrite: trims whose write is due
	skewFiles  *rnd.Skewed

	issued [job.Directions]uint64 // bytes of this pass
	ios    uint64                 // I/Os of the whole run
	target uint64                 // bytes of a pass

	begin     int64 // ns since the run's epoch: of the measured part
	verifying bool
	ramping   bool
	rampBytes uint64
	eof       bool // a network peer has sent everything

	throttle throttle
	depth    depthControl
	logs     logs
	sample   sampler

	invalidated map[*ioengine.File]bool
	ended       atomic.Bool // by the scheduler: exitall, a signal, an error
	live        live
	err         error
	failed      bool
}

// A piece is a block that was written and not verified yet.
type piece struct {
	file   int32
	size   int32
	offset int64
	seed   uint64
	number uint64
}

type trimmed struct {
	cursor *cursor
	offset int64
	size   int64
}

func (w *worker) now() int64 { return int64(time.Since(w.run.epoch)) }

func (w *worker) stopped() bool { return w.ended.Load() }

func (w *worker) addRegion(f *ioengine.File, index int, start, length int64) bool {
	c := newCursor(w.o, f, index, &w.r)
	w.cursors = append(w.cursors, c)
	return c.region(start, length)
}

// setup is done before the job starts: the clock does not run yet.
func (w *worker) setup() error {
	o := w.o
	seed := o.Seed
	if !o.RandRepeat {
		seed ^= uint64(time.Now().UnixNano())
	}
	w.r = rnd.New(seed + uint64(w.number)*0x9e3779b9)
	w.extra = rnd.New(w.r.Uint64())
	w.invalidated = map[*ioengine.File]bool{}
	w.filler = data.NewFiller(o, w.r.Uint64())
	w.fillEach = w.filler.Each()
	if err := w.loadState(); err != nil {
		return err
	}
	var err error
	w.verifier, err = data.NewVerifier(o)
	return err
}

// start makes the engine and the buffers.
func (w *worker) start() (err error) {
	o := w.o
	depth := 1
	if w.traits.Async || o.SubmitMode == "offload" {
		depth = o.IODepth
	}
	block := 0
	for _, bs := range o.BS {
		block = max(block, int(bs.Max))
	}
	if o.VerifyOnly || w.verifier != nil {
		block = max(block, int(o.BS[job.Write].Max))
	}
	w.begin = w.now() // runtime, as far as a peer is waited for
	conf := ioengine.Config{
		Options: o, Depth: depth, Block: block, Dir: ".", Stop: &w.ended,
		Late: func() bool { return w.timedOut(w.now()) },
	}
	if len(w.files) > 0 {
		conf.Dir = filepath.Dir(w.files[0].Name)
	}
	if o.SubmitMode == "offload" {
		switch o.Engine {
		case "psync", "pvsync", "null", "splice":
		default:
			return fmt.Errorf("io_submit_mode=offload does not go with ioengine=%s", o.Engine)
		}
		w.engine, err = ioengine.NewPool(conf, func() (ioengine.Engine, error) { return ioengine.New(o.Engine, conf) })
	} else {
		w.engine, err = ioengine.New(o.Engine, conf)
	}
	if err != nil {
		return err
	}
	if a, ok := w.engine.(ioengine.Async); ok && (depth > 1 || w.traits.Async && !w.traits.Diskless) {
		w.async = a
	}
	if err := w.allocate(depth, block); err != nil {
		return err
	}
	if err := w.startCheckers(); err != nil {
		return err
	}
	w.st.LatencyDepth = depth
	w.depth.init(o, depth)
	w.throttle.init(w)
	return w.logs.open(w)
}

// work is the job: passes of I/O, each followed by its verification.
func (w *worker) work() error {
	o := w.o
	if o.PreRead {
		if err := w.preRead(); err != nil {
			return err
		}
	}
	if err := w.openAll(); err != nil {
		return err
	}
	w.countTarget()
	w.begin = w.now()
	w.throttle.start(w.begin)
	w.sample.start(w.begin)
	w.ramping = o.RampTime > 0 || o.RampSize > 0
	for loop := 0; ; loop++ {
		if err := w.pass(); err != nil || w.stopped() || w.eof {
			return err
		}
		if o.Unlink && o.UnlinkEachLoop {
			w.unlink()
		}
		if o.TimeBased {
			if w.timedOut(w.now()) || w.depth.finished {
				return nil
			}
			// Reading again what is known to be right costs the time
			// that was asked for, so do it.
		} else if loop+1 >= o.Loops || w.timedOut(w.now()) || w.numberDone() || w.stateOver() {
			return nil
		}
		if err := w.rewind(); err != nil {
			return err
		}
	}
}

func (w *worker) pass() error {
	w.state(w.letter())
	if w.o.VerifyOnly {
		if err := w.pretend(); err != nil {
			return err
		}
	} else if err := w.transfer(); err != nil {
		return err
	}
	if w.o.EndFsync && w.o.Writes() && !w.traits.Diskless {
		w.state('F')
		for _, f := range w.files {
			if f.FD >= 0 {
				if err := sys.Fsync(f.FD); err != nil {
					return w.fail(Write, f, 0, err)
				}
			}
		}
	}
	if w.verifies() && !w.stopped() && w.st.Error == 0 {
		return w.verifyAll()
	}
	return nil
}

const (
	Read  = ioengine.Read
	Write = ioengine.Write
	Trim  = ioengine.Trim
)

// verifies says whether writes are remembered and read back.
func (w *worker) verifies() bool {
	return w.verifier != nil && w.o.Writes() && w.o.DoVerify && !w.traits.Network && !w.verifier.Pretends()
}

// countTarget computes how many bytes a pass moves.
func (w *worker) countTarget() {
	o := w.o
	var region uint64
	for _, c := range w.cursors {
		region += uint64(max(c.length, 0))
	}
	w.target = region
	if o.Size.Bytes > 0 && !w.traits.Diskless {
		w.target = min(o.Size.Bytes, max(region, o.Size.Bytes))
	}
	if o.IOSize.Bytes > 0 {
		w.target = o.IOSize.Bytes
	} else if o.IOSize.Percent > 0 {
		w.target = uint64(float64(w.target) * o.IOSize.Percent / 100)
	}
	if o.FillDevice {
		w.target = 1 << 62
	}
}

// wraps says whether a region that is done is begun again in the same pass.
func (w *worker) wraps() bool {
	return w.o.TimeBased && !w.verifies() || w.o.IOSize.Bytes > 0 || w.o.IOSize.Percent > 0
}

// bytesDone says whether a pass has moved what it should.
func (w *worker) bytesDone() bool {
	if w.o.TimeBased && !w.verifies() {
		return false
	}
	if w.o.Trims() && w.o.Writes() {
		return w.issued[Trim] >= w.target && len(w.pairs) == 0
	}
	return w.issued[Read]+w.issued[Write]+w.issued[Trim] >= w.target
}

func (w *worker) numberDone() bool { return w.o.NumberIOs > 0 && w.ios >= w.o.NumberIOs }

func (w *worker) timedOut(now int64) bool {
	if w.o.Runtime == 0 {
		return false
	}
	return now-w.begin >= int64(w.o.Runtime)
}

func (w *worker) rewind() error {
	w.issued = [job.Directions]uint64{}
	for _, c := range w.cursors {
		c.reset()
		f := c.file
		if f.FD < 0 || w.traits.Diskless {
			continue
		}
		if err := w.unmapped(f, func() error { w.drop(f); return nil }); err != nil {
			return w.fail(Read, f, 0, err)
		}
	}
	return nil
}

func (w *worker) openAll() error {
	for i, f := range w.files {
		if i >= w.o.OpenFiles && len(w.files) > w.o.OpenFiles {
			break
		}
		if err := w.open(f); err != nil {
			return err
		}
	}
	return nil
}

// finish frees everything. It is called once, also after a failed start.
func (w *worker) finish() {
	for _, f := range w.files {
		if w.engine != nil && f.FD >= 0 {
			_ = w.engine.Close(f)
		}
		w.closeFile(f)
	}
	if w.engine != nil {
		w.engine.Shutdown()
	}
	if w.checkers != nil {
		w.checkers.end()
	}
	for _, m := range []*[]byte{&w.memory, &w.locked} {
		if *m != nil {
			_ = sys.Unmap(*m)
			*m = nil
		}
	}
	w.units, w.free, w.finished = nil, nil, nil
	w.logHistograms(w.now())
	if err := w.logs.close(w.now()); err != nil && w.err == nil {
		w.err = err
		w.noteError(err)
	}
	if w.o.Unlink {
		w.unlink()
	}
}

func (w *worker) unlink() {
	for _, f := range w.files {
		if !f.Device && !w.traits.Diskless {
			_ = os.Remove(f.Name)
		}
	}
}
