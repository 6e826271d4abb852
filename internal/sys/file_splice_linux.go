package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The flags of the calls below.
const (
	SpliceNonblock = unix.SPLICE_F_NONBLOCK
	SpliceMoreFlag = unix.SPLICE_F_MORE
)

// SpliceAt is splice(2) with file offsets; nil means the file's own, or none.
// Without SpliceNonblock it waits for the pipe.
func SpliceAt(from int, fromOff *int64, to int, toOff *int64, n, flags int) (int, error) {
	for {
		r, _, e := unix.Syscall6(unix.SYS_SPLICE, uintptr(from), uintptr(unsafe.Pointer(fromOff)),
			uintptr(to), uintptr(unsafe.Pointer(toOff)), uintptr(n), uintptr(flags))
		if e == 0 {
			return int(r), nil
		}
		if e != unix.EINTR {
			return 0, errno(e)
		}
	}
}

// VmspliceAt is vmsplice(2) of one buffer: into a pipe's write end it passes
// references to the pages, from its read end it copies. It must not have to
// wait (there are n bytes in the pipe, or SpliceNonblock is given): the
// scheduler is not told of the call, which is half the cost of a small one.
func VmspliceAt(fd int, p unsafe.Pointer, n, flags int) (int, error) {
	iov := unix.Iovec{Base: (*byte)(p)}
	iov.SetLen(n)
	for {
		r, _, e := unix.RawSyscall6(unix.SYS_VMSPLICE, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, uintptr(flags), 0, 0)
		if e == 0 {
			return int(r), nil
		}
		if e != unix.EINTR {
			return 0, errno(e)
		}
	}
}

// Tee is tee(2), never waiting: it duplicates what is in one pipe into another.
func Tee(from, to, n int) (int, error) {
	for {
		r, _, e := unix.Syscall6(unix.SYS_TEE, uintptr(from), uintptr(to), uintptr(n), unix.SPLICE_F_NONBLOCK, 0, 0)
		if e == 0 {
			return int(r), nil
		}
		if e != unix.EINTR {
			return 0, errno(e)
		}
	}
}

// SendfileAt is sendfile(2) from off, which it advances. in must be a file
// that can be mapped or spliced, out anything that is not O_APPEND.
func SendfileAt(out, in int, off *int64, n int) (int, error) {
	for {
		n, err := unix.Sendfile(out, in, off, n)
		if err != unix.EINTR {
			return moved(n, err)
		}
	}
}

// CopyFileRangeAt is copy_file_range(2), which advances both offsets.
func CopyFileRangeAt(in int, inOff *int64, out int, outOff *int64, n int) (int, error) {
	for {
		r, _, e := unix.Syscall6(unix.SYS_COPY_FILE_RANGE, uintptr(in), uintptr(unsafe.Pointer(inOff)),
			uintptr(out), uintptr(unsafe.Pointer(outOff)), uintptr(n), 0)
		if e == 0 {
			return int(r), nil
		}
		if e != unix.EINTR {
			return 0, errno(e)
		}
	}
}

// WaitReadable and WaitWritable wait at most msec milliseconds and say whether
// fd is ready (or failed, which the next call finds out).
func WaitReadable(fd, msec int) (bool, error) { return poll(fd, unix.POLLIN, msec) }
func WaitWritable(fd, msec int) (bool, error) { return poll(fd, unix.POLLOUT, msec) }

func poll(fd int, events int16, msec int) (bool, error) {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	n, err := unix.Poll(p[:], msec)
	if err == unix.EINTR {
		return false, nil
	}
	return n > 0, err
}

// SetCork sets TCP_CORK: while it is on, only full segments leave.
func SetCork(fd int, on bool) error {
	v := 0
	if on {
		v = 1
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_CORK, v)
}
