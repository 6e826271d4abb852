package sys

import "golang.org/x/sys/unix"

// RoutesApart says whether packets of a socket may leave by another interface than those of others with its
// addresses: it is bound to one (SO_BINDTOIFINDEX) that is not theirs, or has a mark (SO_MARK), by which
// rules may choose a route.
func RoutesApart(fd, theirs int) bool {
	bound, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	if err == nil && bound != 0 && bound != theirs {
		return true
	}
	mark, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK)
	return err == nil && mark != 0
}
