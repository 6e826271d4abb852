package proxy

import (
	"net"
	"syscall"
	"time"
)

// inheritKeepAlive sets the options once, on the listening socket: on Linux
// the accepted ones inherit them, which saves four system calls a connection.
func inheritKeepAlive(lc *net.ListenConfig) {
	lc.KeepAlive = -1
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			for _, o := range [...]struct{ level, name, value int }{
				{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(keepAlive.Idle / time.Second)},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, int(keepAlive.Interval / time.Second)},
				{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, keepAlive.Count},
			} {
				if err = syscall.SetsockoptInt(int(fd), o.level, o.name, o.value); err != nil {
					return
				}
			}
		})
		if cerr != nil {
			return cerr
		}
		return err
	}
}
