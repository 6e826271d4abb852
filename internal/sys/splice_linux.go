package sys

import "golang.org/x/sys/unix"

// Splice is splice(2) at the files' own offsets, never waiting for the pipe; a
// socket must be non-blocking. It returns 0 and no error at the end of the
// input.
func Splice(from, to, n int) (int, error) {
	for {
		moved, _, e := unix.Syscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_NONBLOCK)
		if e == 0 {
			return int(moved), nil
		}
		if e != unix.EINTR {
			return 0, errno(e)
		}
	}
}
