package sys

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetUserTimeout has a TCP connection end with ETIMEDOUT when bytes were not
// acknowledged, or could not be sent, for so many milliseconds
// (TCP_USER_TIMEOUT, RFC 5482); 0 is the system's default. Connections inherit
// it from their listener. With keep-alive it takes the place of the number of
// probes.
func SetUserTimeout(fd, msec int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, msec)
}

// SetReusePort lets sockets of one user listen at the same address
// (SO_REUSEPORT); it must be set before bind.
func SetReusePort(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }

// SetTransparent lets a socket be bound to an address that is not this
// machine's, and take connections to such ones (IP_TRANSPARENT,
// IPV6_TRANSPARENT). It needs CAP_NET_ADMIN or CAP_NET_RAW.
func SetTransparent(fd, family int) error {
	if family == unix.AF_INET6 {
		// A socket for both families accepts IPv4 by the other option.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1); err != nil {
			return err
		}
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1)
}

// Bind is bind(2). A socket in repair mode gets its address whoever has it too.
func Bind(fd int, to *Address) error {
	_, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size))
	if e != 0 {
		return e
	}
	return nil
}

// OriginalDestination returns where the client of a connection wanted to go
// before a firewall's rule redirected it here (SO_ORIGINAL_DST of
// linux/netfilter_ipv4.h and IP6T_SO_ORIGINAL_DST). ENOENT: no rule did.
// ENOPROTOOPT: this kernel tracks no connections.
func OriginalDestination(fd, family int) (netip.AddrPort, error) {
	const originalDst = 80
	level := unix.IPPROTO_IP
	if family == unix.AF_INET6 {
		level = unix.IPPROTO_IPV6
	}
	var sa unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrInet4)
	if family == unix.AF_INET6 {
		size = unix.SizeofSockaddrInet6
	}
	if err := getsockopt(fd, level, originalDst, unsafe.Pointer(&sa), &size); err != nil {
		return netip.AddrPort{}, err
	}
	return addrPort(&sa), nil
}

// SetULP puts a protocol on top of a TCP socket (TCP_ULP), "tls" for instance.
func SetULP(fd int, name string) error {
	return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP, name)
}

// OpenFiles returns the soft and the hard limit of descriptors (RLIMIT_NOFILE).
func OpenFiles() (soft, hard uint64, err error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, 0, err
	}
	return l.Cur, l.Max, nil
}

// SetOpenFiles sets the soft limit.
func SetOpenFiles(soft, hard uint64) error {
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: soft, Max: hard})
}

// Capabilities are sets of capabilities (linux/capability.h), a bit for each.
type Capabilities struct{ Effective, Permitted, Inheritable uint64 }

// GetCapabilities is capget(2), of the calling thread.
func GetCapabilities() (c Capabilities, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return c, err
	}
	join := func(low, high uint32) uint64 { return uint64(high)<<32 | uint64(low) }
	return Capabilities{
		Effective:   join(data[0].Effective, data[1].Effective),
		Permitted:   join(data[0].Permitted, data[1].Permitted),
		Inheritable: join(data[0].Inheritable, data[1].Inheritable),
	}, nil
}
