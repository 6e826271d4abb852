package ioengine

import (
	"os"
	"runtime/debug"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// mmapEngine copies to and from a mapping of the whole file.
type mmapEngine struct{ fileCalls }

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
		if end := u.Offset + int64(u.Len); end > int64(len(f.mapped)) {
			if u.Err = remap(f, end); u.Err != nil {
				return
			}
		}
		copyMapped(u, f.mapped[u.Offset:])
		if u.Err == nil && u.Dir == Write && f.Direct {
			first := u.Offset &^ (int64(os.Getpagesize()) - 1)
			u.Err = sys.Msync(f.mapped[first : u.Offset+int64(u.Len)])
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

// remap maps a file that has to have a byte before end.
func remap(f *File, end int64) error {
	if err := unmap(f); err != nil {
		return err
	}
	if end > f.Size {
		return syscall.EIO
	}
	m, err := sys.MapFile(f.FD, 0, int(f.Size), f.Write)
	if err != nil {
		return err
	}
	f.mapped = m
	// A mapping has advice of its own, and without it each fault of a random
	// access reads what is around the page too.
	if f.Advice == sys.AdviseNormal {
		return nil
	}
	return sys.Madvise(m, f.Advice)
}

// copyMapped copies; touching a page beyond the end of a file that was
// truncated meanwhile is SIGBUS, which becomes EIO here.
func copyMapped(u *Unit, m []byte) {
	defer recoverFault(u, debug.SetPanicOnFault(true))
	if u.Dir == Read {
		u.N = sys.CopyLong(u.Buf[u.At:u.At+u.Len], m)
	} else {
		u.N = sys.CopyLong(m, u.Buf[u.At:u.At+u.Len])
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
