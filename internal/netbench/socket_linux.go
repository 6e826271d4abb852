package netbench

import (
	"net"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// inspect returns the receive buffer that the kernel has granted so far and its
// view of the connection; zeros when it won't say.
func inspect(conn *net.TCPConn) (rcvbuf int, t transport) {
	_ = withFd(conn, func(fd int) {
		rcvbuf, _ = syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF)
		if info, err := sys.TransportInfo(fd); err == nil {
			t = transport{
				RTTUs:       float64(info.RTT) / float64(time.Microsecond),
				Cwnd:        info.Cwnd,
				Retransmits: info.Retransmits,
			}
		}
	})
	return rcvbuf, t
}

// sndbuf returns the send buffer that the kernel has granted so far.
func sndbuf(conn *net.TCPConn) (size int) {
	_ = withFd(conn, func(fd int) {
		size, _ = syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF)
	})
	return size
}

// lateBind is a net.Dialer.Control that keeps many sources on one address from
// using up its ports.
func lateBind(_, _ string, raw syscall.RawConn) error {
	var err error
	if ctlErr := raw.Control(func(fd uintptr) { err = sys.SetBindNoPort(int(fd)) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

func withFd(conn *net.TCPConn, f func(fd int)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}
