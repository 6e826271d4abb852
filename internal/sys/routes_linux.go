package sys

import "golang.org/x/sys/unix"

// RouteChanges returns a socket that hears of interfaces, addresses, routes and rules which
// change in the thread's network namespace. It does not block.
func RouteChanges() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV4_RULE |
		unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV6_ROUTE | 1<<(unix.RTNLGRP_IPV6_RULE-1)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// RoutesChanged says whether a socket of [RouteChanges] has heard of anything since it
// was asked last.
func RoutesChanged(fd int) bool {
	var b [4096]byte
	changed := false
	for range 10000 { // who is told more in the meantime asks again
		_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_TRUNC)
		if err == unix.ENOBUFS {
			changed = true // more than it had room for
			continue
		}
		if err != nil {
			return changed
		}
		changed = true
	}
	return changed
}
