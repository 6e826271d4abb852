package run

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/spliced-io/spliced/internal/fio/data"
	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/job"
)

// fail records the first error of the job; it returns nil if the job goes on.
func (w *worker) fail(dir int, f *ioengine.File, offset int64, err error) error {
	kind := [...]string{"read", "write", "trim", "fsync", "fdatasync"}[dir]
	var m *data.Mismatch
	verify := errors.As(err, &m)
	errno := errnoOf(err)
	if dir <= Trim && slices.Contains(w.o.IgnoreError[dir], int(errno)) {
		return nil
	}
	if w.o.FillDevice && (errno == syscall.ENOSPC || errno == syscall.EDQUOT) {
		return errFull
	}
	full := fmt.Errorf("%s %s at offset %d: %w", kind, f.Name, offset, err)
	if verify {
		full = fmt.Errorf("file %s: %w", f.Name, err)
	}
	full = w.named(full)
	w.st.ErrorCount++
	if w.st.FirstError == 0 {
		w.st.FirstError = int(errno)
	}
	if w.goesOn(dir, verify) {
		w.complain(full)
		return nil
	}
	return full
}

// mostComplaints is how many errors a job that goes on describes: a file of
// another job has one in every block.
const mostComplaints = 20

// complain says what went wrong in a job that goes on.
func (w *worker) complain(err error) {
	if w.complaints++; w.complaints <= mostComplaints {
		w.run.say("%v", err)
	}
}

// complainLast says how many errors were not described.
func (w *worker) complainLast() {
	if more := w.complaints - mostComplaints; more > 0 {
		w.run.say("%v", w.named(fmt.Errorf("%d more errors, %d in all", more, w.complaints)))
	}
}

// named says whose error it is, once.
func (w *worker) named(err error) error {
	var e *job.Error
	if err == nil || errors.As(err, &e) || errors.Is(err, errFull) {
		return err
	}
	return &job.Error{Job: w.o.Name, Err: err}
}

// errFull ends a fill_device job without an error.
var errFull = errors.New("no space left")

func (w *worker) goesOn(dir int, verify bool) bool {
	switch w.o.ContinueOnError {
	case "all":
		return true
	case "io":
		return !verify
	case "verify":
		return verify
	case "read":
		return dir == Read && !verify
	case "write":
		return dir == Write
	}
	return false
}

func (w *worker) noteError(err error) {
	if err == nil || errors.Is(err, errFull) || w.st.Error != 0 {
		return
	}
	errno := errnoOf(err)
	w.st.Error, w.st.Cause = int(errno), errno.Error()
	if w.st.FirstError == 0 {
		w.st.FirstError = int(errno)
	}
}

// errnoOf finds the errno in an error; EILSEQ stands for a block that failed
// its verification, EIO for what has none.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	var m *data.Mismatch
	switch {
	case errors.As(err, &m):
		return syscall.EILSEQ
	case errors.As(err, &errno):
		return errno
	}
	return syscall.EINVAL
}
