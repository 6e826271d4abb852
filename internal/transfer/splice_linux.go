package transfer

import (
	"errors"
	"syscall"

	"github.com/spliced-io/spliced/internal/pipe"
	"github.com/spliced-io/spliced/internal/sys"
)

// spliceChunk is the most that one splice(2) is asked for, in bytes. A pipe
// holds less.
const spliceChunk = 1 << 20

// blindAttempts in a row that find nothing where poll(2) says there is
// something mean that splice(2) does not see it. One may happen to anybody:
// the bytes came in between.
const blindAttempts = 3

// errBlind: splice(2) answers EAGAIN, though nothing has to be waited for.
var errBlind = errors.New("splice sees nothing")

// errEmpty: the source has nothing now.
var errEmpty = errors.New("source empty")

// throughPipe splices through a pipe of ours. It is empty whenever the source
// is asked, and an empty pipe has a free slot: so EAGAIN is about the source.
// The pipe is taken when the first bytes are there, and held until the end.
func (j *job) throughPipe() (done bool, why Why) {
	src, dst := j.kernel.src, j.kernel.dst
	var p *pipe.Pipe
	defer func() {
		if p != nil {
			j.kernel.pool.Put(p)
		}
	}()
	for !j.full() && !j.cutShort() {
		if p == nil {
			if err := src.wait(); err != nil {
				j.fail(Source, err)
				return true, ""
			}
			if p = j.kernel.pool.Get(); p == nil {
				return false, WhyPipeBudget
			}
		}
		n, err := src.reading(func(from int) (int, error) {
			return spliceSeen(from, p.W, int(min(spliceChunk, j.left())))
		})
		switch {
		case err == errBlind:
			return false, WhyBlind
		case err != nil:
			if why, refused := refusal(err); refused {
				return false, why
			}
			return j.confirmError(err)
		case n == 0:
			if src.format == deviceFormat {
				j.res.Outcome = EOF // asking a terminal again would need a second ^D
				return true, ""
			}
			return j.confirmEOF(WhyBlind)
		}
		p.Held = n
		j.taken += int64(n)
		if done, why = j.pump(p, dst); done || why != "" {
			return done, why
		}
	}
	return true, ""
}

// pump delivers what the pipe holds. If it can't, the bytes are pending.
func (j *job) pump(p *pipe.Pipe, dst *end) (done bool, why Why) {
	for p.Held > 0 {
		n, err := dst.writing(func(to int) (int, error) { return sys.Splice(p.R, to, p.Held) })
		if err == nil && n == 0 {
			err = syscall.EIO // the account of the pipe is wrong: never spin on it
		}
		if err == nil {
			p.Held -= n
			j.res.InKernel += int64(n)
			j.delivered(n)
			continue
		}
		why, refused := refusal(err)
		var lost error
		if j.pending, lost = p.Drain(); lost != nil {
			err, refused = errors.Join(err, lost), false
		}
		if refused {
			return false, why
		}
		j.fail(Drain, err)
		return true, ""
	}
	return false, ""
}

// direct splices where one end, or both, is a pipe.
func (j *job) direct() (done bool, why Why) {
	src, dst := j.kernel.src, j.kernel.dst
	for !j.full() && !j.cutShort() {
		var closed error
		n, err := dst.writing(func(to int) (n int, err error) {
			closed = src.control(func(from int) {
				n, err = j.spliceBetween(from, to)
			})
			return n, err
		})
		if closed != nil {
			j.fail(Source, closed)
			return true, ""
		}
		switch {
		case err == nil && n > 0:
			j.moved(n)
		case err == nil && src.format == pipeFormat:
			j.res.Outcome = EOF
			return true, ""
		case err == nil:
			return j.confirmEOF(WhyBlind)
		case err == errEmpty:
			if err := src.wait(); err != nil {
				j.fail(Source, err)
				return true, ""
			}
		case err == errBlind:
			return false, WhyBlind
		default:
			if why, refused := refusal(err); refused {
				return false, why
			}
			if side := j.blame(err); side != Source {
				j.fail(side, err)
				return true, ""
			}
			return j.confirmError(err)
		}
	}
	return true, ""
}

// confirmError notes an error of the source. A socket in a sockmap may have
// bytes from before it, which splice(2) does not see.
func (j *job) confirmError(err error) (done bool, why Why) {
	readable := false
	if j.kernel.src.format == socketFormat && j.kernel.src.control(func(fd int) { readable = sys.Readable(fd) }) == nil && readable {
		buf := make([]byte, min(size, j.left()))
		if n, _ := j.kernel.src.Read(buf); n > 0 {
			j.taken += int64(n)
			j.pending, j.failure = buf[:n], err
			return false, WhyBlind
		}
	}
	j.fail(Source, err)
	return true, ""
}

// spliceBetween answers EAGAIN only if to is full: EAGAIN is ambiguous, so
// both are asked.
func (j *job) spliceBetween(from, to int) (n int, err error) {
	for range blindAttempts {
		n, err = sys.Splice(from, to, int(min(spliceChunk, j.left())))
		switch {
		case err != syscall.EAGAIN:
			return n, err
		case j.kernel.src.waits() && !sys.Readable(from):
			return 0, errEmpty
		case !sys.Writable(to):
			return 0, err
		}
	}
	return 0, errBlind
}

// spliceSeen answers EAGAIN only if from is not readable.
func spliceSeen(from, to, n int) (moved int, err error) {
	for range blindAttempts {
		moved, err = sys.Splice(from, to, n)
		if err != syscall.EAGAIN || !sys.Readable(from) {
			return moved, err
		}
	}
	return 0, errBlind
}
