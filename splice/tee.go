package splice

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

// A TeeEnd is what one of the targets of a [Tee] got.
type TeeEnd struct {
	Bytes       int64  // accepted
	Undelivered []byte // have left the source and are not with this target, oldest first
}

// Tee copies src to a and to b until src ends: each gets every byte, at the
// speed of the slower one. At most one pipe a target is held.
//
// On Linux src's bytes go to a pipe by splice(2), are duplicated into a second
// one by tee(2), which copies references and no bytes, and leave both by
// splice(2). src must then be a socket, a pipe or a file with a SyscallConn
// method, as [os.File], [net.TCPConn] and [net.UnixConn] have; a target without
// one, or one that the kernel can't splice to (a file with O_APPEND), is written
// to. In all other cases src is read, and a and b are written.
//
// ctx ends a wait. The read deadline of src and the write deadlines of a and b
// are cleared, used for that and cleared again. Tee closes nothing, and
// half-closes nothing. The error is nil at the end of src, else an [*Error]
// that names the side ("source", "a", "b"). The ends are complete in any case.
func Tee(ctx context.Context, a, b io.Writer, src io.Reader) (ends [2]TeeEnd, err error) {
	if a == nil || b == nil || src == nil {
		return ends, &Error{Op: "tee", Err: syscall.EINVAL}
	}
	t := &tee{src: src, dst: [2]io.Writer{a, b}}
	t.deadline(time.Time{})
	over := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(over)
		t.deadline(time.Unix(1, 0))
	})
	var side string
	if err = context.Cause(ctx); err == nil {
		side, err = t.run()
	}
	if !cancel() {
		<-over
		if errors.Is(err, os.ErrDeadlineExceeded) {
			side, err = "", context.Cause(ctx)
		}
	}
	t.deadline(time.Time{})
	if err != nil {
		err = &Error{Op: "tee", Side: side, Err: closedError(err)}
	}
	return t.ends, err
}

type tee struct {
	src  io.Reader
	dst  [2]io.Writer
	ends [2]TeeEnd
}

// teeSides name the targets in errors.
var teeSides = [2]string{"a", "b"}

func (t *tee) deadline(at time.Time) {
	if c, ok := t.src.(interface{ SetReadDeadline(time.Time) error }); ok {
		_ = c.SetReadDeadline(at)
	}
	for _, d := range t.dst {
		if c, ok := d.(interface{ SetWriteDeadline(time.Time) error }); ok {
			_ = c.SetWriteDeadline(at)
		}
	}
}

// run tries the kernel's way, and copies what is left.
func (t *tee) run() (side string, err error) {
	if done, side, err := t.inKernel(); done {
		return side, err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := t.src.Read(buf)
		if n > 0 {
			if side, werr := t.both(buf[:n]); werr != nil {
				return side, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return "", nil
		}
		if err != nil {
			return "source", err
		}
	}
}

// both writes to both targets. The second one gets its bytes also if the first
// has failed, as its own failure would be its own.
func (t *tee) both(b []byte) (side string, err error) {
	for i := range t.dst {
		if e := t.write(i, b); e != nil && err == nil {
			side, err = teeSides[i], e
		}
	}
	return side, err
}

func (t *tee) write(i int, b []byte) error {
	n, err := t.dst[i].Write(b)
	t.ends[i].Bytes += int64(n)
	if n < len(b) {
		if err == nil {
			err = io.ErrShortWrite
		}
		t.ends[i].Undelivered = append(t.ends[i].Undelivered, b[n:]...)
	}
	return err
}
