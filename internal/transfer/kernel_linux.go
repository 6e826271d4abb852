package transfer

import (
	"cmp"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/pipe"
	"github.com/spliced-io/spliced/internal/sys"
)

// kernel is what the kernel is asked with.
type kernel struct {
	src, dst *end // nil: to be used by its methods
	why      Why  // why one is nil
	wake     waker
	pool     pipe.Pool
}

// open looks at both ends.
func (j *job) open() (side Side, err error) {
	k := &j.kernel
	none := time.Time{}
	var why Why
	if k.src, why, err = newEnd(j.Src, func() bool { return setReadDeadline(j.Src, none) }); err != nil {
		return Source, err
	}
	if k.dst, k.why, err = newEnd(j.Dst, func() bool { return setWriteDeadline(j.Dst, none) }); err != nil {
		return Drain, err
	}
	if why != whyFirstChoice {
		k.why = why
	}
	j.watch = watchByDeadlines(j.Src, j.Dst)
	if err := k.wake.arm(j.watch, k.src, k.dst); err != nil {
		return Both, err
	}
	if k.src != nil {
		j.src = k.src
	}
	if k.dst != nil {
		j.dst = k.dst
	}
	if k.src != nil && k.dst != nil && k.src.format == pipeFormat && k.src.id == k.dst.id {
		return Both, syscall.EINVAL // its own end would feed it for ever
	}
	return Both, nil
}

func (j *job) close() {
	j.kernel.wake.close()
	j.kernel.pool.Trim()
}

// inKernel copies without a buffer, and says whether that was the end. If not,
// the rest is to be copied through one, for the reason noted.
func (j *job) inKernel() (done bool) {
	src, dst := j.kernel.src, j.kernel.dst
	switch {
	case src == nil || dst == nil:
		j.use(ReadWrite, j.kernel.why)
		return false
	case dst.appends:
		j.use(ReadWrite, WhyAppend)
		return false
	case src.format == socketFormat && src.blocking, dst.format == socketFormat && dst.blocking:
		j.use(ReadWrite, WhyBlocking)
		return false
	}
	var why Why
	if src.format == fileFormat && j.Only != Splice {
		if dst.format == fileFormat {
			j.use(CopyFileRange, whyFirstChoice)
			if done, why = j.call(sys.CopyFileRange); done {
				return true
			}
		}
		// A pipe in blocking mode would make sendfile(2) wait, splice(2) not.
		if dst.format != pipeFormat || !dst.blocking {
			j.use(SendFile, why)
			done, refused := j.call(func(from, to, n int) (int, error) { return sys.Sendfile(to, from, n) })
			if !done {
				j.use(ReadWrite, cmp.Or(why, refused))
			}
			return done
		}
	}
	j.use(Splice, why)
	// The device may hold a pipe's lock for as long as it takes to answer: no
	// stranger's pipe is left to that.
	if src.format != deviceFormat && (src.format == pipeFormat || dst.format == pipeFormat) {
		done, why = j.direct()
	} else {
		done, why = j.throughPipe()
	}
	if !done {
		j.use(ReadWrite, why)
	}
	return done
}

// refusal is the reason code for an errno that says that the kernel has moved
// nothing and won't, as far as reads and writes may still work: if the errno
// means something else, they will meet it too.
func refusal(err error) (why Why, refused bool) {
	switch err {
	case syscall.EXDEV:
		return WhyFileSystem, true
	case syscall.EBADF: // copy_file_range(2): O_APPEND, set since we looked
		return WhyAppend, true
	case syscall.EINVAL, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EPERM, syscall.ETXTBSY, syscall.ESPIPE,
		syscall.EIO: // copy_file_range(2) on CIFS
		return WhyRefused, true
	}
	return "", false
}

// blame says which end an error of a call with both is about.
func (j *job) blame(err error) Side {
	switch err {
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EPIPE:
		return Drain
	}
	src, dst := j.kernel.src.format, j.kernel.dst.format
	switch {
	case dst == socketFormat && src != socketFormat:
		return Drain
	case src == socketFormat:
		return Source
	}
	return Both
}
