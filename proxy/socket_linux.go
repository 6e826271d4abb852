package proxy

import (
	"net"
	"net/netip"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// reusePort has lc set SO_REUSEPORT, beside what it does already.
func reusePort(lc *net.ListenConfig) {
	before := lc.Control
	lc.Control = func(network, address string, c syscall.RawConn) error {
		if before != nil {
			if err := before(network, address, c); err != nil {
				return err
			}
		}
		const soReusePort = 15 // asm-generic/socket.h; package syscall has it for some processors only
		return control(c, func(fd int) error {
			return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soReusePort, 1)
		})
	}
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

// bindLate has d connect from that address, with a port that is chosen when the
// destination is known: one can be used once for each.
func bindLate(d *net.Dialer, source netip.Addr) {
	d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	before := d.Control
	d.Control = func(network, address string, c syscall.RawConn) error {
		if before != nil {
			if err := before(network, address, c); err != nil {
				return err
			}
		}
		return control(c, sys.SetBindNoPort)
	}
}
