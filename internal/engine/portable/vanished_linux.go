package portable

import (
	"net"

	"github.com/spliced-io/spliced/internal/sys"
)

// vanished says whether a TCP connection that was not shut down from this side
// is no longer one: then its end was a RST and not a FIN.
func vanished(c *net.TCPConn) (err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { _, err = sys.PeerFamily(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// unacknowledged returns the bytes of the send queue that the peer has not
// acknowledged.
func unacknowledged(c *net.TCPConn) (n int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	if raw.Control(func(fd uintptr) { n, err = sys.Unacked(int(fd)) }) != nil || err != nil {
		return 0
	}
	return n
}
