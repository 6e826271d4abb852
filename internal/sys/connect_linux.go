package sys

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Address is where to connect to, as the kernel wants it.
type Address struct {
	raw  [unix.SizeofSockaddrUnix]byte
	size uint8
}

// TCPAddress makes an Address of an IP address and port.
func TCPAddress(a netip.AddrPort) (Address, error) {
	var s Address
	ip := a.Addr().Unmap()
	binary.BigEndian.PutUint16(s.raw[2:], a.Port())
	switch {
	case ip.Is4():
		binary.NativeEndian.PutUint16(s.raw[:], unix.AF_INET)
		b := ip.As4()
		copy(s.raw[4:], b[:])
		s.size = unix.SizeofSockaddrInet4
	case ip.Is6():
		binary.NativeEndian.PutUint16(s.raw[:], unix.AF_INET6)
		b := ip.As16()
		copy(s.raw[8:], b[:])
		zone, err := zoneIndex(ip.Zone())
		if err != nil {
			return s, err
		}
		binary.NativeEndian.PutUint32(s.raw[24:], zone)
		s.size = unix.SizeofSockaddrInet6
	default:
		return s, syscall.EAFNOSUPPORT
	}
	return s, nil
}

// UnixAddress makes an Address of a path; a leading @ means the abstract
// namespace, as in package net. Paths have at most 107 bytes.
func UnixAddress(path string) (Address, error) {
	var s Address
	if path == "" || len(path) >= len(s.raw)-2 {
		return s, syscall.EINVAL
	}
	binary.NativeEndian.PutUint16(s.raw[:], unix.AF_UNIX)
	copy(s.raw[2:], path)
	s.size = uint8(2 + len(path) + 1)
	if path[0] == '@' {
		s.raw[2] = 0
		s.size--
	}
	return s, nil
}

// Family returns AF_INET, AF_INET6 or AF_UNIX.
func (s *Address) Family() int { return int(binary.NativeEndian.Uint16(s.raw[:])) }

// StreamSocket returns a non-blocking, close-on-exec stream socket.
func StreamSocket(family int) (int, error) {
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}

// Connect is connect(2). EINPROGRESS: the socket becomes writable when the
// connection stands or has failed, which [SocketError] tells. EAGAIN: a unix
// listener's queue is full.
func Connect(fd int, to *Address) error {
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size))
	if e != 0 {
		return e
	}
	return nil
}

// SocketError returns and clears SO_ERROR; nil is no error.
func SocketError(fd int) error {
	e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if e != 0 {
		return syscall.Errno(e)
	}
	return nil
}

// Accept is accept4(2): the connection is non-blocking and close-on-exec. The
// address is invalid for a unix socket.
func Accept(fd int) (int, netip.AddrPort, error) {
	var sa unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(sa))
	for {
		n, _, e := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
			uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if e == 0 {
			return int(n), zonedAddrPort(int(n), &sa), nil
		}
		if e != unix.EINTR {
			return -1, netip.AddrPort{}, errno(e)
		}
	}
}

// LocalAddr is getsockname(2); invalid for a unix socket.
func LocalAddr(fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(sa))
	_, _, e := unix.Syscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if e != 0 {
		return netip.AddrPort{}, e
	}
	return zonedAddrPort(fd, &sa), nil
}

// zonedAddrPort is addrPort with the zone as socket fd sees it.
func zonedAddrPort(fd int, sa *unix.RawSockaddrAny) netip.AddrPort {
	a := addrPort(sa)
	if sa.Addr.Family != unix.AF_INET6 {
		return a
	}
	in := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
	return netip.AddrPortFrom(a.Addr().WithZone(zoneName(fd, in.Scope_id)), a.Port())
}

// addrPort is the address without a zone; invalid for a unix socket.
func addrPort(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), networkOrder(in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom16(in.Addr).Unmap(), networkOrder(in.Port))
	}
	return netip.AddrPort{}
}

func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// SetTCP is SetNoDelay and SetKeepAlive.
func SetTCP(fd, idle, interval, count int) error {
	if err := SetNoDelay(fd); err != nil {
		return err
	}
	return SetKeepAlive(fd, idle, interval, count)
}

// SetNoDelay turns off Nagle's delay, which a relay must not add to what it
// forwards.
func SetNoDelay(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

// SetKeepAlive turns on keep-alive probes (idle, interval in seconds, count).
// idle counts from the last segment received, also if that was long ago: for
// that SO_KEEPALIVE has to come first (tcp_sock_set_keepidle in net/ipv4/tcp.c).
func SetKeepAlive(fd, idle, interval, count int) error {
	for _, o := range [...][3]int{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, interval},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count},
	} {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return err
		}
	}
	return nil
}
