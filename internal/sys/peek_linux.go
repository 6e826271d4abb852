package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peek is recv(2) with MSG_PEEK, without waiting: the bytes stay in the socket.
// It returns 0 and no error at the end of the stream.
func Peek(fd int, b []byte) (int, error) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_PEEK, 0, 0)
		if e == 0 {
			return int(n), nil
		}
		if e != unix.EINTR {
			return 0, errno(e)
		}
	}
}

// SetReceiveLow has a socket count as readable only when n bytes are there, or
// its end is (SO_RCVLOWAT). The kernel keeps the window wide enough for them,
// and cuts n to half of the largest receive buffer (tcp_set_rcvlowat in
// net/ipv4/tcp.c). Unix sockets take the option and pay no heed to it.
func SetReceiveLow(fd, n int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n)
}

// ReceiveLow is what [SetReceiveLow] sets.
func ReceiveLow(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT)
}
