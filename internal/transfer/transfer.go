// Package transfer moves bytes from one descriptor to another by the cheapest
// call that the kernel has for the two, and by read and write where it has
// none. It is the mechanics of splice.Copy.
package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"sync/atomic"
	"time"
)

// Method is a way of moving bytes.
type Method string

// The methods.
const (
	Splice        Method = "splice"          // page references through a pipe: one of the two, or an own one
	SendFile      Method = "sendfile"        // page references from a file
	CopyFileRange Method = "copy_file_range" // in the file system: shared blocks where it can
	ReadWrite     Method = "read/write"      // a buffer
)

// Why says why a method is not the first choice for the two ends: a code for
// logs.
type Why string

// The reasons. Empty is the first choice.
const (
	WhyRequested    Why = "requested"     // named by the caller
	WhyNoDescriptor Why = "no-descriptor" // one end has no descriptor
	WhyNotLinux     Why = "not-linux"     // this system has none of the calls
	WhyNotAStream   Why = "not-a-stream"  // a socket that keeps message boundaries
	WhyBlocking     Why = "blocking-mode" // a socket without O_NONBLOCK: splice(2) could wait for ever
	WhyAppend       Why = "append-only"   // O_APPEND: the kernel's calls refuse it
	WhyFileSystem   Why = "file-system"   // the two files are on two file systems, or on one that can't
	WhyUnsized      Why = "unsized-file"  // copy_file_range(2) saw nothing where read(2) found bytes
	WhyRefused      Why = "refused"       // the kernel can't do it with these two
	WhyBlind        Why = "splice-blind"  // splice(2) saw nothing where recv(2) found bytes
	WhyPipeBudget   Why = "pipe-budget"   // no pipe of a useful size is left for this user
	whyFirstChoice  Why = ""
)

// Outcome says how a copy ended.
type Outcome uint8

// The outcomes.
const (
	EOF      Outcome = iota // the source has ended, or its io.LimitedReader has
	Max                     // Spec.Max bytes were delivered
	Canceled                // the context ended
	Idle                    // Spec.Idle
	Lifetime                // Spec.Lifetime
	Failed                  // see Result.Err
)

// A Side is one of the two ends.
type Side uint8

// The sides an error can concern.
const (
	Both Side = iota
	Source
	Drain
)

// A Spec is what to copy.
type Spec struct {
	Dst            io.Writer
	Src            io.Reader
	First          []byte // bytes already read from Src
	Max            int64  // First included; 0 is no limit
	Idle, Lifetime time.Duration

	// Only, if not empty, is the method to use: Splice or ReadWrite. A Splice
	// that can't be is ErrRefused.
	Only Method
}

// ErrRefused: the method named by Spec.Only can't be used. Result.Why says why.
var ErrRefused = errors.New("refused")

// A Meter is a live view of a copy. The zero value is ready.
type Meter struct {
	bytes  atomic.Int64
	method atomic.Pointer[Method]
}

// Bytes is how many the drain has accepted.
func (m *Meter) Bytes() int64 { return m.bytes.Load() }

// Method is the one in use, empty before the first.
func (m *Meter) Method() Method {
	if p := m.method.Load(); p != nil {
		return *p
	}
	return ""
}

// A Result is the end of a copy.
type Result struct {
	Bytes       int64  // the drain has accepted
	InKernel    int64  // of these, never in this process's memory
	Method      Method // the last in use
	Why         Why
	Outcome     Outcome
	Side        Side   // of Err
	Err         error  // with Failed
	Undelivered []byte // have left the source and are not with the drain
}

// A job is a copy under way.
type job struct {
	Spec
	meter   *Meter
	watch   *watch
	src     io.Reader // the descriptor's reads, or Spec.Src
	dst     io.Writer
	taken   int64  // bytes that have left the source, First included
	pending []byte // of these, the ones in memory: they are delivered before anything more is taken
	failure error  // the source's, to be reported when it has no more bytes
	res     Result
	kernel  kernel // what this system adds
}

// Copy copies until the source ends or a limit is reached. m may be read
// meanwhile.
func Copy(ctx context.Context, spec Spec, m *Meter) Result {
	var limited []*io.LimitedReader
	spec.Src, limited = unlimit(spec.Src)
	j := &job{Spec: spec, meter: m, src: spec.Src, dst: spec.Dst}
	if j.Max == 0 {
		j.Max = math.MaxInt64
	}
	byReader := j.limitBy(limited)
	j.run(ctx)
	for _, l := range limited {
		l.N -= j.taken - int64(len(j.First))
	}
	if byReader && j.res.Outcome == Max {
		j.res.Outcome = EOF
	}
	j.res.Bytes = m.Bytes()
	j.res.Undelivered = append(j.res.Undelivered, j.pending...)
	return j.res
}

// unlimit returns what the limits are put on.
func unlimit(r io.Reader) (io.Reader, []*io.LimitedReader) {
	var limited []*io.LimitedReader
	for {
		l, ok := r.(*io.LimitedReader)
		if !ok {
			return r, limited
		}
		limited = append(limited, l)
		r = l.R
	}
}

// limitBy lowers Max to what the readers allow, and says whether it did.
func (j *job) limitBy(limited []*io.LimitedReader) (did bool) {
	for _, l := range limited {
		n := max(l.N, 0)
		if n > math.MaxInt64-int64(len(j.First)) {
			continue
		}
		if n += int64(len(j.First)); n < j.Max {
			j.Max, did = n, true
		}
	}
	return did
}

func (j *job) run(ctx context.Context) {
	first := j.First[:min(int64(len(j.First)), j.Max)]
	j.taken = int64(len(j.First))
	j.use(ReadWrite, whyFirstChoice)
	side, err := j.open()
	defer j.close()
	if err != nil {
		j.pending = bytes.Clone(j.First)
		j.fail(side, err)
		return
	}
	j.watch.start(ctx, j.Idle, j.Lifetime)
	defer j.watch.stop()

	j.pending = first
	ok := j.flush()
	j.pending = append(bytes.Clone(j.pending), j.First[len(first):]...)
	if !ok || j.full() {
		return
	}
	if j.Only == ReadWrite {
		j.use(ReadWrite, WhyRequested)
	} else if j.inKernel() {
		return
	}
	if j.Only == Splice {
		j.fail(Both, ErrRefused)
		return
	}
	j.copy()
}

// full says whether Max is reached, which is the end.
func (j *job) full() bool {
	if j.left() > 0 {
		return false
	}
	j.res.Outcome = Max
	return true
}

// left is how many bytes may still be taken from the source.
func (j *job) left() int64 { return max(0, j.Max-j.taken) }

func (j *job) use(m Method, why Why) {
	j.res.Method, j.res.Why = m, why
	j.meter.method.Store(&m)
}

// delivered notes n bytes that the drain has accepted.
func (j *job) delivered(n int) {
	if n > 0 {
		j.meter.bytes.Add(int64(n))
		j.watch.moved()
	}
}

// fail ends the copy by an error, unless it comes from its being cut.
func (j *job) fail(side Side, err error) {
	if o, cut := j.watch.cut(); cut {
		j.res.Outcome = o
		return
	}
	j.res.Outcome, j.res.Side, j.res.Err = Failed, side, err
}

// cutShort ends the copy if it is cut.
func (j *job) cutShort() bool {
	o, cut := j.watch.cut()
	if cut {
		j.res.Outcome = o
	}
	return cut
}
