package sys

import "golang.org/x/sys/unix"

// Pipe returns a non-blocking, close-on-exec pipe.
func Pipe() (r, w int, err error) {
	var p [2]int
	err = unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC)
	return p[0], p[1], err
}

// SetPipeSize asks for a pipe of size bytes and returns what the kernel
// granted. EPERM: the user's allowance is used up (fs.pipe-user-pages-soft,
// fs.pipe-max-size).
func SetPipeSize(fd, size int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, size)
}

// PipeSize returns a pipe's capacity in bytes: its slots times the page size.
// A slot can hold more than a page, so the bytes in a pipe may exceed it.
func PipeSize(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0) }

// Read is read(2).
func Read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}
