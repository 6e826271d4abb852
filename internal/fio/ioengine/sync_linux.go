package ioengine

import (
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// psyncEngine uses pread and pwrite.
type psyncEngine struct{ fileCalls }

func (e *psyncEngine) Do(u *Unit) {
	switch u.Dir {
	case Read:
		u.N, u.Err = sys.Pread(u.File.FD, u.ptr(), u.Len, u.Offset)
	case Write:
		u.N, u.Err = sys.Pwrite(u.File.FD, u.ptr(), u.Len, u.Offset)
	default:
		e.other(u)
	}
}

// pvsyncEngine uses preadv and pwritev.
type pvsyncEngine struct{ fileCalls }

func (e *pvsyncEngine) Do(u *Unit) {
	switch u.Dir {
	case Read:
		u.N, u.Err = sys.Preadv(u.File.FD, u.ptr(), u.Len, u.Offset)
	case Write:
		u.N, u.Err = sys.Pwritev(u.File.FD, u.ptr(), u.Len, u.Offset)
	default:
		e.other(u)
	}
}

// syncEngine uses lseek, read and write.
type syncEngine struct{ fileCalls }

func (e *syncEngine) Open(f *File) error { f.pos = -1; return nil }

func (e *syncEngine) Do(u *Unit) {
	if u.Dir > Write {
		e.other(u)
		return
	}
	f := u.File
	if f.pos != u.Offset {
		if _, u.Err = syscall.Seek(f.FD, u.Offset, 0); u.Err != nil {
			f.pos = -1
			return
		}
	}
	b := u.Buf[u.At : u.At+u.Len]
	if u.Dir == Read {
		u.N, u.Err = syscall.Read(f.FD, b)
	} else {
		u.N, u.Err = syscall.Write(f.FD, b)
	}
	if f.pos = u.Offset + int64(u.N); u.Err != nil {
		u.N, f.pos = 0, -1
	}
}

// fileCalls are what engines on files have in common.
type fileCalls struct{}

func (fileCalls) Open(*File) error  { return nil }
func (fileCalls) Close(*File) error { return nil }
func (fileCalls) Shutdown()         {}

// other trims and syncs.
func (fileCalls) other(u *Unit) {
	switch u.Dir {
	case Trim:
		if u.File.Device {
			u.Err = sys.DiscardBlocks(u.File.FD, uint64(u.Offset), uint64(u.Len))
		} else {
			u.Err = sys.PunchHole(u.File.FD, u.Offset, int64(u.Len))
		}
	case Fsync:
		u.Err = sys.Fsync(u.File.FD)
	case Fdatasync:
		u.Err = sys.Fdatasync(u.File.FD)
	}
	if u.Err == nil {
		u.N = u.Len
	}
}

// nullEngine moves nothing.
type nullEngine struct {
	fileCalls
	queued []*Unit
}

func (e *nullEngine) Do(u *Unit) { u.N = u.Len }

func (e *nullEngine) Queue(u *Unit) bool {
	u.N = u.Len
	e.queued = append(e.queued, u)
	return true
}

func (e *nullEngine) Commit() error { return nil }

func (e *nullEngine) Wait(_, most int, done []*Unit) ([]*Unit, error) {
	n := min(len(e.queued), most)
	done = append(done, e.queued[:n]...)
	e.queued = append(e.queued[:0], e.queued[n:]...)
	return done, nil
}
