package sys

import (
	"time"

	"golang.org/x/sys/unix"
)

// Vmsplice is vmsplice(2) of one buffer into a pipe, without waiting. The
// pipe refers to b's memory afterwards, which must stay as it is.
func Vmsplice(pipe int, b []byte) (int, error) {
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	return unix.Vmsplice(pipe, []unix.Iovec{iov}, unix.SPLICE_F_NONBLOCK)
}

// ReadableWithin waits until fd has input or has ended, and says whether it has.
func ReadableWithin(fd int, timeout time.Duration) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(timeout.Milliseconds()))
	return n > 0, err
}

// SetTCPRepair is TCP_REPAIR. It needs CAP_NET_ADMIN in the user namespace
// that owns the network namespace.
func SetTCPRepair(fd int, on bool) error {
	v := unix.TCP_REPAIR_OFF
	if on {
		v = unix.TCP_REPAIR_ON
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, v)
}

// FileSystem returns the magic number of the file system that fd lies on
// (statfs(2)).
func FileSystem(fd int) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return 0, err
	}
	return int64(st.Type), nil
}

// Release returns the kernel's release, such as 6.18.44.
func Release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// CopyFileRange is copy_file_range(2) at both files' own offsets (Linux 4.5;
// between regular files of one file system). 0 and no error is the end of the
// file, or a file whose size the kernel does not know, as in /proc.
func CopyFileRange(from, to, n int) (int, error) {
	for {
		m, err := unix.CopyFileRange(from, nil, to, nil, n, 0)
		if err != unix.EINTR {
			return max(m, 0), err
		}
	}
}
