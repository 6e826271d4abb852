package sys

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// OpenUnnamed makes a file without a name in a directory, to be written and
// read: open(2) with O_TMPFILE. It is gone when it is closed, unless
// [LinkUnnamed] has named it. EOPNOTSUPP or EISDIR: not on this file system.
func OpenUnnamed(dir string, mode uint32) (int, error) {
	return unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, mode)
}

// LinkUnnamed gives the file a name that nothing has yet: linkat(2) of
// /proc/self/fd, as open(2) shows.
func LinkUnnamed(fd int, name string) error {
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
}
