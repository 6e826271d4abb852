package splice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/engine/flow"
	"github.com/spliced-io/spliced/internal/transfer"
)

// Method is a way in which [Copy] moves bytes.
type Method = transfer.Method

const (
	// MethodSplice moves page references with splice(2): through the pipe that
	// is one of the ends, or through an own one.
	MethodSplice = transfer.Splice
	// MethodSendFile moves page references from a file with sendfile(2).
	MethodSendFile = transfer.SendFile
	// MethodCopyFileRange leaves the copy to the file system
	// (copy_file_range(2), Linux 4.5), which may share blocks.
	MethodCopyFileRange = transfer.CopyFileRange
	// MethodReadWrite copies through a buffer.
	MethodReadWrite = transfer.ReadWrite
)

// CopyWhy says why a [Method] is not the first choice for a pair: a code for
// logs, empty for the first choice.
type CopyWhy = transfer.Why

// The reasons for another method than the first choice.
const (
	CopyWhyRequested    = transfer.WhyRequested    // Use(EngineCopy)
	CopyWhyNoDescriptor = transfer.WhyNoDescriptor // an end is not a syscall.Conn
	CopyWhyNotLinux     = transfer.WhyNotLinux     // this system has none of the calls
	CopyWhyNotAStream   = transfer.WhyNotAStream   // a socket that keeps message boundaries
	CopyWhyBlocking     = transfer.WhyBlocking     // a socket in blocking mode
	CopyWhyAppend       = transfer.WhyAppend       // the target was opened with O_APPEND
	CopyWhyFileSystem   = transfer.WhyFileSystem   // two files of two file systems
	CopyWhyUnsized      = transfer.WhyUnsized      // a file without a size, as in /proc
	CopyWhyRefused      = transfer.WhyRefused      // the kernel can't do it with these two
	CopyWhyBlind        = transfer.WhyBlind        // splice(2) saw nothing where recv(2) found bytes
	CopyWhyPipeBudget   = transfer.WhyPipeBudget   // no pipe of a useful size is left for this user
)

// A CopyResult is the outcome of a [Copy].
type CopyResult struct {
	Bytes       int64   // dst has accepted
	InKernel    int64   // of these, never in this process's memory
	Method      Method  // the last one in use
	Why         CopyWhy // why that one, if it is not the first choice for the pair
	Reason      Reason  // EOF, Max, Idle, Lifetime, Stopped (the context), ResetBySource, ResetByDrain, Failed
	Undelivered []byte  // have left src and are not with dst, oldest first
}

// Copy copies from src to dst until src ends or a limit is reached, by the
// cheapest call that the kernel has for the two:
//
//   - from a regular file to another: copy_file_range, and sendfile where the
//     file systems can't
//   - from a regular file to a socket, a pipe or a device: sendfile
//   - from a socket, a pipe or a device to anything: splice
//   - anything else, O_APPEND targets, and whatever the kernel refuses:
//     read and write
//
// src and dst are taken at their word: what has a SyscallConn method, as
// [os.File], [net.TCPConn] and [net.UnixConn], is used by its descriptor, past
// its Read and Write methods; [io.LimitedReader] is seen through, and its N is
// lowered. A file is read and written at its own offset, which moves as if by
// Read and Write. What direct I/O refuses, since it is no whole block, as the
// end of most files, goes through the page cache: O_DIRECT is cleared for that
// call.
//
// These options apply: the first values of [MaxBytes] and [Prefetched],
// [IdleTimeout], [MaxLifetime], and [Use] of [EngineAuto], [EngineCopy] (read
// and write) and [EngineSplice] (splice or an error). Any other is EINVAL.
//
// Deadlines of src's reads and dst's writes are cleared, used to end a wait
// when ctx or a limit ends, and cleared again. A descriptor without deadlines,
// such as a terminal or an [os.File] whose Fd method was called, is waited for
// with poll(2), which ctx ends too; a mere [io.Reader] or [io.Writer] is waited
// for as long as it takes.
//
// A file that is copied to its own end, behind where it is read, grows for as
// long as nothing stops it: use MaxBytes.
//
// Copy closes nothing, and half-closes nothing: the FIN that ended src is the
// caller's to forward. It holds one pipe while it splices between ends that are
// none, taken with the first byte.
//
// The error is nil at the end of src and with MaxBytes; else it is an [*Error]
// that wraps the cause of ctx, [ErrIdleTimeout], [ErrLifetime] or the errno.
// The CopyResult is complete in any case.
func Copy(ctx context.Context, dst io.Writer, src io.Reader, opts ...Option) (CopyResult, error) {
	var t Transfer
	return t.Copy(ctx, dst, src, opts...)
}

// A Transfer is a [Copy] that can be watched. Its zero value is ready; it is
// good for one Copy.
type Transfer struct{ meter transfer.Meter }

// Bytes is how many bytes dst has accepted so far. What one system call moves
// from file to file, at most 16 MiB, counts when it returns.
func (t *Transfer) Bytes() int64 { return t.meter.Bytes() }

// Method is the one in use now, empty before the first.
func (t *Transfer) Method() Method { return t.meter.Method() }

// Copy is as the function [Copy].
func (t *Transfer) Copy(ctx context.Context, dst io.Writer, src io.Reader, opts ...Option) (CopyResult, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	spec, err := o.copySpec(dst, src)
	if err != nil {
		return CopyResult{Reason: Failed}, &Error{Op: "copy", Err: err}
	}
	r := transfer.Copy(ctx, spec, &t.meter)
	reason, err := copyEnd(ctx, r)
	res := CopyResult{
		Bytes: r.Bytes, InKernel: r.InKernel, Method: r.Method, Why: r.Why,
		Reason: reason, Undelivered: r.Undelivered,
	}
	if err != nil {
		return res, &Error{Op: "copy", Side: copySides[r.Side], Err: err}
	}
	return res, nil
}

func (o *options) copySpec(dst io.Writer, src io.Reader) (transfer.Spec, error) {
	if err := o.check(); err != nil {
		return transfer.Spec{}, err
	}
	if dst == nil || src == nil {
		return transfer.Spec{}, syscall.EINVAL
	}
	if o.maxBToA != 0 || len(o.fromB) != 0 || o.halfClose != 0 || o.own || o.onEnd != nil ||
		o.past != nil || o.wire != (engine.WirePolicy{}) {
		return transfer.Spec{}, fmt.Errorf("an option for two directions: %w", syscall.EINVAL)
	}
	if o.rateAToB != 0 || o.rateBToA != 0 || o.sharedAToB != nil || o.sharedBToA != nil {
		return transfer.Spec{}, fmt.Errorf("a copy's bandwidth can't be bounded: %w", syscall.EINVAL)
	}
	spec := transfer.Spec{
		Dst: dst, Src: src, First: o.fromA,
		Max: o.maxAToB, Idle: o.idle, Lifetime: o.lifetime,
	}
	switch o.engine {
	case EngineCopy:
		spec.Only = transfer.ReadWrite
	case EngineSplice:
		spec.Only = transfer.Splice
	case EngineSockmap, EngineWire:
		return spec, fmt.Errorf("%s: %w: a copy has one direction", o.engine, ErrEngine)
	}
	return spec, nil
}

var copySides = [...]string{transfer.Both: "", transfer.Source: "source", transfer.Drain: "target"}

func copyEnd(ctx context.Context, r transfer.Result) (Reason, error) {
	switch r.Outcome {
	case transfer.EOF:
		return EOF, nil
	case transfer.Max:
		return Max, nil
	case transfer.Canceled:
		return Stopped, context.Cause(ctx)
	case transfer.Idle:
		return Idle, ErrIdleTimeout
	case transfer.Lifetime:
		return Lifetime, ErrLifetime
	}
	err := closedError(r.Err)
	switch {
	case errors.Is(err, transfer.ErrRefused):
		return Failed, fmt.Errorf("splice: %w: %s", ErrEngine, r.Why)
	case !brokenConnection(err):
		return Failed, err
	case r.Side == transfer.Source:
		return ResetBySource, err
	}
	return ResetByDrain, err
}

// brokenConnection says whether err means that the peer, or the way to it, is
// gone, rather than that this machine has a problem.
func brokenConnection(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return errors.Is(err, io.ErrClosedPipe) || errors.Is(err, io.ErrUnexpectedEOF)
	}
	// A socket that was never connected is the caller's mistake.
	return errno != syscall.ENOTCONN && flow.PeerGone(errno)
}
