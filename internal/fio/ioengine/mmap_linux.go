package ioengine

import (
	"runtime/debug"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// mmapEngine copies to and from a mapping of the file: the whole of it, or a
// window of 1 GiB that follows the I/O.
type mmapEngine struct{ fileCalls }

const mmapWindow = 1 << 30

func (e *mmapEngine) Close(f *File) error { return unmap(f) }

func unmap(f *File) error {
	if f.mapped == nil {
		return nil
	}
	err := sys.Unmap(f.mapped)
	f.mapped = nil
	return err
}

func (e *mmapEngine) Do(u *Unit) {
	switch u.Dir {
	case Read, Write:
		f := u.File
		if f.mapped == nil || u.Offset < f.mapOff || u.Offset+int64(u.Len) > f.mapOff+int64(len(f.mapped)) {
			if u.Err = remap(f, u.Offset, u.Len); u.Err != nil {
				return
			}
		}
		copyMapped(u, f.mapped[u.Offset-f.mapOff:])
		if u.Err == nil && u.Dir == Write && f.Direct {
			u.Err = sys.Msync(f.mapped)
		}
	case Trim:
		e.other(u)
	default:
		if u.File.mapped != nil && u.File.Write {
			u.Err = sys.Msync(u.File.mapped)
		}
		if u.Err == nil {
			e.other(u)
		}
	}
}

func remap(f *File, off int64, n int) error {
	if err := unmap(f); err != nil {
		return err
	}
	const page = 4096
	size := f.Size
	start := int64(0)
	if size > mmapWindow {
		start = off &^ (page - 1)
		size = min(max(mmapWindow, int64(n)+page), f.Size-start)
	}
	if off+int64(n) > start+size {
		return syscall.EIO // beyond the end
	}
	m, err := sys.MapFile(f.FD, start, int(size), f.Write)
	if err != nil {
		return err
	}
	f.mapped, f.mapOff = m, start
	return nil
}

// copyMapped copies; touching a page beyond the end of a file that was
// truncated meanwhile is SIGBUS, which becomes EIO here.
func copyMapped(u *Unit, m []byte) {
	defer recoverFault(u, debug.SetPanicOnFault(true))
	if u.Dir == Read {
		u.N = copy(u.Buf[u.At:u.At+u.Len], m)
	} else {
		u.N = copy(m, u.Buf[u.At:u.At+u.Len])
	}
}

func recoverFault(u *Unit, before bool) {
	debug.SetPanicOnFault(before)
	r := recover()
	if r == nil {
		return
	}
	if _, fault := r.(interface{ Addr() uintptr }); !fault {
		panic(r)
	}
	u.N, u.Err = 0, syscall.EIO
}
