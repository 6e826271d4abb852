package transfer

import (
	"context"
	"errors"
	"io"
)

// A TeeSpec is what to copy to two drains at once.
type TeeSpec struct {
	Dst [2]io.Writer
	Src io.Reader
}

// A TeeEnd is what one drain got.
type TeeEnd struct {
	Bytes       int64  // accepted
	InKernel    int64  // of these, never in this process's memory
	Undelivered []byte // have left the source and are not with this drain
}

// A TeeResult is the end of a tee.
type TeeResult struct {
	Ends    [2]TeeEnd
	Outcome Outcome // EOF, Canceled or Failed
	Side    Side    // of Err
	Index   int     // which drain, if Side is Drain
	Err     error   // with Failed
}

// A tee is one under way.
type tee struct {
	TeeSpec
	watch  *watch
	src    io.Reader // the descriptor's reads, or TeeSpec.Src
	dst    [2]io.Writer
	res    TeeResult
	kernel teeKernel // what this system adds
}

// Tee copies until the source ends: each drain gets every byte, at the speed of
// the slower one.
func Tee(ctx context.Context, spec TeeSpec) TeeResult {
	t := &tee{TeeSpec: spec, src: spec.Src, dst: spec.Dst}
	side, index, err := t.open()
	defer t.close()
	if err != nil {
		t.fail(side, index, err)
		return t.res
	}
	t.watch.start(ctx, 0, 0)
	defer t.watch.stop()
	if !t.inKernel() {
		t.copy()
	}
	return t.res
}

// copy reads and writes.
func (t *tee) copy() {
	buf := buffers.Get().(*[size]byte)
	defer buffers.Put(buf)
	for nothing := 0; !t.cutShort(); {
		n, err := t.src.Read(buf[:])
		if n > 0 {
			nothing = 0
			if !t.both(buf[:n]) {
				return
			}
		} else if err == nil {
			if nothing++; nothing == mostNothings {
				err = io.ErrNoProgress
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			t.res.Outcome = EOF
			return
		case err != nil:
			t.fail(Source, 0, err)
			return
		}
	}
}

// both writes to both drains. The second one gets its bytes also if the first
// has failed: it has done nothing wrong.
func (t *tee) both(b []byte) bool {
	first := t.write(0, b)
	return t.write(1, b) && first
}

// write notes what a drain did not take.
func (t *tee) write(i int, b []byte) bool {
	n, err := t.dst[i].Write(b)
	n = min(max(n, 0), len(b))
	t.res.Ends[i].Bytes += int64(n)
	if n == len(b) {
		return true // an error with it comes again
	}
	if err == nil {
		err = io.ErrShortWrite
	}
	t.keep(i, b[n:])
	t.fail(Drain, i, err)
	return false
}

func (t *tee) keep(i int, b []byte) {
	t.res.Ends[i].Undelivered = append(t.res.Ends[i].Undelivered, b...)
}

// fail ends the tee by its first error, unless it comes from its being cut.
func (t *tee) fail(side Side, index int, err error) {
	if t.cutShort() || t.res.Outcome == Failed {
		return
	}
	t.res.Outcome, t.res.Side, t.res.Index, t.res.Err = Failed, side, index, err
}

func (t *tee) cutShort() bool {
	o, cut := t.watch.cut()
	if cut {
		t.res.Outcome = o
	}
	return cut
}
