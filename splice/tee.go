package splice

import (
	"context"
	"io"
	"syscall"

	"github.com/spliced-io/spliced/internal/transfer"
)

// A TeeEnd is what one of the targets of a [Tee] got.
type TeeEnd struct {
	Bytes       int64  // accepted
	InKernel    int64  // of these, never in this process's memory
	Undelivered []byte // have left the source and are not with this target, oldest first
}

// Tee copies src to a and to b until src ends: each gets every byte, at the
// speed of the slower one.
//
// On Linux src's bytes go to a pipe by splice(2), are duplicated into a second
// one by tee(2), which copies references and no bytes, and leave both by
// splice(2); the pipes are taken with the first byte. As with [Copy], ends that
// have a SyscallConn method are used by their descriptors. A target that the
// kernel can't splice to (without a descriptor, a file with O_APPEND, a socket
// in blocking mode) is written to; a source that it can't splice from is read,
// and both targets are written to.
//
// ctx ends a wait, in the ways that [Copy] has. The read deadline of src and
// the write deadlines of a and b are cleared, used for that and cleared again.
// Tee closes nothing, and half-closes nothing. The error is nil at the end of
// src, else an [*Error] that names the side ("source", "a", "b") and wraps the
// cause of ctx or the errno. The ends are complete in any case: what a target
// that failed, or was never asked, has missed is among its Undelivered.
func Tee(ctx context.Context, a, b io.Writer, src io.Reader) (ends [2]TeeEnd, err error) {
	if a == nil || b == nil || src == nil {
		return ends, &Error{Op: "tee", Err: syscall.EINVAL}
	}
	r := transfer.Tee(ctx, transfer.TeeSpec{Dst: [2]io.Writer{a, b}, Src: src})
	for i, end := range r.Ends {
		ends[i] = TeeEnd(end)
	}
	switch r.Outcome {
	case transfer.Failed:
		return ends, &Error{Op: "tee", Side: teeSide(r), Err: closedError(r.Err)}
	case transfer.Canceled:
		return ends, &Error{Op: "tee", Err: context.Cause(ctx)}
	}
	return ends, nil
}

func teeSide(r transfer.TeeResult) string {
	switch r.Side {
	case transfer.Source:
		return "source"
	case transfer.Drain:
		return [...]string{"a", "b"}[r.Index]
	}
	return ""
}
