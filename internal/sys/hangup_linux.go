package sys

import "golang.org/x/sys/unix"

// Hangup asks poll(2) whether a connection is broken, which does not take the
// error from the socket, and whether its peer has sent the last byte.
func Hangup(fd int) (broken, ended bool, err error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	for {
		if _, err = unix.Poll(fds, 0); err != unix.EINTR {
			break
		}
	}
	got := fds[0].Revents
	return got&unix.POLLERR != 0, got&(unix.POLLRDHUP|unix.POLLHUP) != 0, err
}
