//go:build unix && !linux

package portable

import (
	"net"
	"syscall"
)

// vanished says whether a TCP connection that was not shut down from this side
// is no longer one: then its end was a RST and not a FIN.
func vanished(c *net.TCPConn) (err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { _, err = syscall.Getpeername(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// unacknowledged is not known here: a RST may overtake the last bytes.
func unacknowledged(*net.TCPConn) int { return 0 }
