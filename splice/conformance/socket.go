//go:build linux

package conformance

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"

	"github.com/spliced-io/spliced/internal/sys"
)

// Kernel: include/uapi/linux/sockios.h. Unread bytes, and bytes not yet
// acknowledged (of a unix socket: memory, which is something else).
const (
	siocInQ  = 0x541b
	siocOutQ = 0x5411
)

// unread returns how many bytes wait to be read from c. A kernel may count none
// for a socket in a sockmap (FIONREAD, Linux 6.18): these are looked at.
func unread(c any) (int64, error) {
	n, err := queue(c, siocInQ)
	if n != 0 || err != nil {
		return n, err
	}
	if n, err = peekAt(c, make([]byte, 1)); n == 0 || err != nil {
		return n, err
	}
	return peekAt(c, make([]byte, 32<<20))
}

// peekAt is recv(2) with MSG_PEEK; it has nothing to say of an end or an error,
// which it leaves to others.
func peekAt(c any, b []byte) (n int64, err error) {
	err = control(c, func(fd int) error {
		if m, _, err := syscall.Recvfrom(fd, b, syscall.MSG_PEEK|syscall.MSG_DONTWAIT); err == nil {
			n = int64(m)
		}
		return nil
	})
	return n, err
}

// unacked returns how many bytes written to the TCP connection c its peer has
// not acknowledged.
func unacked(c any) (int64, error) { return queue(c, siocOutQ) }

// writable says whether c's send buffer has room.
func writable(c any) (room bool, err error) {
	err = control(c, func(fd int) error {
		room = sys.Writable(fd)
		return nil
	})
	return room, err
}

func queue(c any, request uintptr) (int64, error) {
	var n int32
	err := control(c, func(fd int) error {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&n)))
		if errno != 0 {
			return os.NewSyscallError("ioctl", errno)
		}
		return nil
	})
	return int64(n), err
}

// control runs f with the descriptor of c.
func control(c any, f func(fd int) error) error {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T has no descriptor", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// sendUrgent sends p; its last byte is the urgent one.
func sendUrgent(c net.Conn, p []byte) error {
	return control(c, func(fd int) error {
		n, err := syscall.SendmsgN(fd, p, nil, nil, syscall.MSG_OOB)
		if err == nil && n != len(p) {
			err = fmt.Errorf("short write of %d bytes", n)
		}
		return os.NewSyscallError("sendmsg", err)
	})
}

// duplicate returns a second descriptor of the socket of c, to look into its
// queues with.
func duplicate(c net.Conn) (*os.File, error) {
	f, ok := c.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("%T can't be duplicated", c)
	}
	return f.File()
}

func closeWrite(c net.Conn) error {
	return c.(interface{ CloseWrite() error }).CloseWrite()
}

// setBuffers bounds the kernel's buffers of c, in bytes as setsockopt counts.
func setBuffers(c net.Conn, receive, send int) error {
	b := c.(interface {
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
	})
	if receive > 0 {
		if err := b.SetReadBuffer(receive); err != nil {
			return err
		}
	}
	if send > 0 {
		return b.SetWriteBuffer(send)
	}
	return nil
}

// hangup says whether the peer of c is gone for good. It takes no byte and no
// pending error.
func hangup(c any) (bool, error) {
	fds := struct {
		fd              int32
		events, revents int16
	}{}
	const pollHup = 0x10
	err := control(c, func(fd int) error {
		fds.fd = int32(fd)
		var zero syscall.Timespec
		_, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1,
			uintptr(unsafe.Pointer(&zero)), 0, 0, 0)
		if errno != 0 {
			return os.NewSyscallError("ppoll", errno)
		}
		return nil
	})
	return fds.revents&pollHup != 0, err
}
