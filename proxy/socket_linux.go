package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// reusePort has lc set SO_REUSEPORT, beside what it does already.
func reusePort(lc *net.ListenConfig) {
	const soReusePort = 15 // asm-generic/socket.h; package syscall has it for some processors only
	lc.Control = also(lc.Control, func(fd int) error {
		return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soReusePort, 1)
	})
}

// transparent has lc set IP_TRANSPARENT, beside what it does already.
func transparent(lc *net.ListenConfig) { lc.Control = also(lc.Control, setTransparent) }

// A controller does something with a socket before it is bound or connected.
type controller = func(network, address string, c syscall.RawConn) error

// also does f after what is done before, if anything is.
func also(before controller, f func(fd int) error) controller {
	return func(network, address string, c syscall.RawConn) error {
		if before != nil {
			if err := before(network, address, c); err != nil {
				return err
			}
		}
		return control(c, f)
	}
}

func setTransparent(fd int) error {
	if err := sys.SetTransparent(fd); err != nil {
		return fmt.Errorf("set IP_TRANSPARENT, which needs CAP_NET_RAW: %w", err)
	}
	return nil
}

// setBacklog listens again, which only changes the length of the queue.
func setBacklog(ln net.Listener, n int) error {
	c, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	return control(c, func(fd int) error { return syscall.Listen(fd, n) })
}

func control(c syscall.RawConn, f func(fd int) error) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// bindLate has d connect from that address, of this machine or of another one, with
// a port that is chosen when the destination is known: one can be used once for each.
func bindLate(d *net.Dialer, source netip.Addr, foreign bool) {
	d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	d.Control = also(d.Control, func(fd int) error {
		if foreign {
			if err := setTransparent(fd); err != nil {
				return fmt.Errorf("%w: %w", errClientSource, err)
			}
		}
		return sys.SetBindNoPort(fd)
	})
}
