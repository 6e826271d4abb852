package sys

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetTransparent lets a socket have local addresses that are not this machine's:
// one that listens gets the connections that netfilter's tproxy hands it, with the
// address that the client has dialled as their own; another may be bound to
// whichever it likes (IP_TRANSPARENT). IPv6 has the same flag. It needs CAP_NET_RAW
// or CAP_NET_ADMIN; accepted connections inherit it.
func SetTransparent(fd int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
}

// IsTransparent says whether a socket may have addresses that are not this machine's.
func IsTransparent(fd int) bool {
	v, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT)
	return err == nil && v != 0
}

// OriginalDestination is the address to which the peer of a TCP connection has sent
// its SYN: what netfilter has redirected (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST), or
// else the connection's local address, which it is with tproxy. A connection that
// was not redirected has its own address.
func OriginalDestination(fd int) (netip.AddrPort, error) {
	local, err := LocalAddr(fd)
	if err != nil || !local.IsValid() {
		return local, err
	}
	level := unix.IPPROTO_IPV6
	if local.Addr().Is4() { // also those of an IPv6 socket
		level = unix.IPPROTO_IP
	}
	const originalDestination = 80 // SO_ORIGINAL_DST; IP6T_SO_ORIGINAL_DST is the same number
	var sa unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(unix.RawSockaddrInet6{}))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), originalDestination,
		uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		// ENOPROTOOPT: the kernel tracks no connections; ENOENT: not this one.
		return local, nil
	}
	return zonedAddrPort(fd, &sa), nil
}
