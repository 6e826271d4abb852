package transfer

import (
	"errors"
	"io"
	"sync"
)

const size = 64 << 10

var buffers = sync.Pool{New: func() any { return new([size]byte) }}

// mostNothings is how often in a row a reader may return neither bytes nor an
// error, as bufio has it.
const mostNothings = 100

// A waiter waits for bytes without taking them.
type waiter interface{ wait() error }

// copy moves bytes through a buffer to the end.
func (j *job) copy() {
	if !j.flush() {
		return
	}
	var buf *[size]byte
	defer func() {
		if buf != nil {
			buffers.Put(buf)
		}
	}()
	for nothing := 0; !j.full() && !j.cutShort(); {
		// A descriptor can be waited for without a buffer.
		if w, ok := j.src.(waiter); ok && buf == nil {
			if err := w.wait(); err != nil {
				j.fail(Source, err)
				return
			}
		}
		if buf == nil {
			buf = buffers.Get().(*[size]byte)
		}
		n, err := j.src.Read(buf[:min(size, j.left())])
		if n > 0 {
			nothing = 0
			j.taken += int64(n)
			j.pending = buf[:n]
			if !j.flush() {
				j.pending = append([]byte(nil), j.pending...)
				return
			}
		} else if err == nil {
			if nothing++; nothing == mostNothings {
				err = io.ErrNoProgress
			}
		}
		switch {
		case err != nil && j.failure != nil:
			j.fail(Source, j.failure)
			return
		case errors.Is(err, io.EOF):
			j.res.Outcome = EOF
			return
		case err != nil:
			j.fail(Source, err)
			return
		}
		if n < size/2 {
			buffers.Put(buf)
			buf = nil
		}
	}
}

// flush delivers what is in memory. What it can't deliver stays there.
func (j *job) flush() bool {
	if len(j.pending) == 0 {
		return true
	}
	n, err := j.dst.Write(j.pending)
	n = min(max(n, 0), len(j.pending))
	j.delivered(n)
	if j.pending = j.pending[n:]; len(j.pending) == 0 {
		j.pending = nil
		return true // an error with it comes again
	}
	if err == nil {
		err = io.ErrShortWrite
	}
	j.fail(Drain, err)
	return false
}
