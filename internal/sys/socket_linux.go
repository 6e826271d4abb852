package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Recv is recv(2) without waiting. It returns 0 and no error at the end of the
// stream.
//
// Recv and Send don't tell Go's scheduler: they never wait, and telling it
// costs 15 % of the CPU time of small messages (docs/engines.md).
func Recv(fd int, b []byte) (int, error) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		if e == 0 {
			return int(n), nil
		}
		if e != unix.EINTR {
			return 0, errno(e)
		}
	}
}

// RecvHolding is recv(2) that waits, as long as SO_RCVTIMEO says, and does not
// tell Go's scheduler: the caller holds one of GOMAXPROCS meanwhile, and keeps
// the garbage collector waiting. Told, the scheduler gives the processor to
// another thread and takes it back, which costs two context switches a message.
func RecvHolding(fd int, b []byte) (int, error) {
	n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0, 0, 0)
	if e != 0 {
		return 0, errno(e)
	}
	return int(n), nil
}

// Send is send(2) without waiting and without SIGPIPE. A short count means
// that the socket took no more.
func Send(fd int, b []byte) (int, error) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if e == 0 {
			return int(n), nil
		}
		if e != unix.EINTR {
			return 0, errno(e)
		}
	}
}

// Shutdown is shutdown(2); how is syscall.SHUT_RD, SHUT_WR or SHUT_RDWR.
func Shutdown(fd, how int) error { return unix.Shutdown(fd, how) }

// Disconnect is connect(2) to AF_UNSPEC: a TCP socket drops its queues, sends
// a RST and is unconnected afterwards (tcp_disconnect in net/ipv4/tcp.c).
func Disconnect(fd int) error {
	sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	if e != 0 {
		return e
	}
	return nil
}

// Unacked returns the bytes in a stream socket's send queue that the peer has
// not acknowledged yet (SIOCOUTQ).
func Unacked(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.SIOCOUTQ) }

// Dup returns a new close-on-exec descriptor of the same open file.
func Dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

// Close is close(2). The descriptor is gone whatever it answers.
func Close(fd int) error { return unix.Close(fd) }

// SetNonblock sets O_NONBLOCK on the open file and says whether it was set.
func SetNonblock(fd int, on bool) (was bool, err error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return false, err
	}
	was = flags&unix.O_NONBLOCK != 0
	if was == on {
		return was, nil
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags^unix.O_NONBLOCK)
	return was, err
}

// SocketType returns SO_TYPE: syscall.SOCK_STREAM, for instance.
func SocketType(fd int) (int, error) { return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE) }

// Listens says whether listen(2) was called on a socket (SO_ACCEPTCONN).
func Listens(fd int) (bool, error) {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return v != 0, err
}

// SocketProtocol returns SO_PROTOCOL: syscall.IPPROTO_TCP, or [ProtocolMPTCP].
func SocketProtocol(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
}

// ProtocolMPTCP is IPPROTO_MPTCP of linux/in.h.
const ProtocolMPTCP = unix.IPPROTO_MPTCP

// Cookie returns the number that this socket alone has on this machine
// (SO_COOKIE, Linux 4.12).
func Cookie(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
}

// PeerFamily returns the address family of a connected socket's peer.
// ENOTCONN says that there is no peer.
func PeerFamily(fd int) (int, error) { return family(unix.SYS_GETPEERNAME, fd) }

// LocalFamily returns the address family of a socket.
func LocalFamily(fd int) (int, error) { return family(unix.SYS_GETSOCKNAME, fd) }

func family(call uintptr, fd int) (int, error) {
	var sa unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(sa))
	_, _, e := unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if e != 0 {
		return 0, e
	}
	return int(sa.Addr.Family), nil
}

// SetOOBInline leaves urgent bytes in the stream (SO_OOBINLINE) and says
// whether they were left there before.
func SetOOBInline(fd int, on bool) (was bool, err error) {
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE)
	if err != nil {
		return false, err
	}
	if was = v != 0; was == on {
		return was, nil
	}
	v = 0
	if on {
		v = 1
	}
	return was, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, v)
}

// LeaveOOBInline is SetOOBInline(fd, true) for a socket whose past is known.
func LeaveOOBInline(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
}

// errno returns e as an error without allocating for the one that the hot path
// meets.
func errno(e syscall.Errno) error {
	if e == unix.EAGAIN {
		return errAgain
	}
	return e
}

var errAgain error = unix.EAGAIN
