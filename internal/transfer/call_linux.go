package transfer

import (
	"errors"
	"io"
	"syscall"
)

// chunk is the most that one call moves, in bytes: what is moved is seen, and
// a cut noticed, in between.
const chunk = 16 << 20

// call copies from a regular file by a call that takes both descriptors:
// copy_file_range(2), or sendfile(2), which holds nothing when it stops.
func (j *job) call(f func(from, to, n int) (int, error)) (done bool, why Why) {
	if !j.flush() {
		return true, ""
	}
	for !j.full() && !j.cutShort() {
		var closed error
		n, err := j.kernel.dst.writing(func(to int) (n int, err error) {
			closed = j.kernel.src.control(func(from int) { n, err = f(from, to, int(min(chunk, j.left()))) })
			return n, err
		})
		if closed != nil {
			j.fail(Source, closed)
			return true, ""
		}
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			if why, refused := refusal(err); refused {
				return false, why
			}
			j.fail(j.blame(err), err)
			return true, ""
		}
		if n == 0 {
			return j.confirmEOF(WhyUnsized)
		}
		j.moved(n)
	}
	return true, ""
}

// moved notes n bytes that went from end to end in the kernel.
func (j *job) moved(n int) {
	j.taken += int64(n)
	j.res.InKernel += int64(n)
	j.delivered(n)
}

// confirmEOF asks read(2) whether the source has ended: copy_file_range(2)
// says so of files whose size it does not know, splice(2) of a socket that has
// only bytes behind an urgent mark or in a sockmap. What it reads is pending.
func (j *job) confirmEOF(otherwise Why) (done bool, why Why) {
	buf := make([]byte, min(size, j.left()))
	n, err := j.kernel.src.Read(buf)
	switch {
	case n > 0:
		j.taken += int64(n)
		j.pending = buf[:n]
		return false, otherwise
	case errors.Is(err, io.EOF):
		j.res.Outcome = EOF
	default:
		j.fail(Source, err)
	}
	return true, ""
}
