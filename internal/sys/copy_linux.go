package sys

import "golang.org/x/sys/unix"

// Sendfile is sendfile(2) at from's own offset. from is a file, never a socket
// or a pipe; to must be non-blocking where waiting matters. What to does not
// take is not lost: the offset of a regular file goes back. At most 2 GiB - 4
// KiB are moved in one call.
func Sendfile(to, from, n int) (int, error) {
	for {
		m, err := unix.Sendfile(to, from, nil, n)
		if err != unix.EINTR {
			return max(m, 0), err
		}
	}
}

// Write is write(2).
func Write(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Write(fd, b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// A FileID is what fstat(2) says about what a descriptor refers to.
type FileID struct {
	Format   uint32 // S_IFMT: syscall.S_IFSOCK, for instance
	Dev, Ino uint64
}

// Identify is fstat(2).
func Identify(fd int) (FileID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return FileID{}, err
	}
	return FileID{Format: st.Mode & unix.S_IFMT, Dev: st.Dev, Ino: st.Ino}, nil
}

// FileFlags returns the flags of the open file: syscall.O_NONBLOCK,
// syscall.O_APPEND and others.
func FileFlags(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0) }

// SetFileFlags is fcntl(2) with F_SETFL.
func SetFileFlags(fd, flags int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	return err
}

// Readable says whether a read would not wait: there are bytes, the end, or an
// error.
func Readable(fd int) bool { return ready(fd, unix.POLLIN|unix.POLLRDHUP) }

// Writable says whether a small write would not wait.
func Writable(fd int) bool { return ready(fd, unix.POLLOUT) }

func ready(fd int, events int16) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(p, 0)
		if err != unix.EINTR {
			return n > 0 || err != nil // an error: the call itself will say it
		}
	}
}

// AwaitReadable waits until fd is readable or the eventfd wake was added to. It
// holds a thread. A negative wake is not waited for.
func AwaitReadable(fd, wake int) error { return wait(fd, unix.POLLIN|unix.POLLRDHUP, wake) }

// AwaitWritable is AwaitReadable for writing.
func AwaitWritable(fd, wake int) error { return wait(fd, unix.POLLOUT, wake) }

func wait(fd int, events int16, wake int) error {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(p, -1)
		if err != unix.EINTR {
			return err
		}
	}
}
