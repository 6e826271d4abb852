//go:build !linux

package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// reusePort makes listening fail: what SO_REUSEPORT means differs from system to
// system.
func reusePort(lc *net.ListenConfig) {
	lc.Control = func(string, string, syscall.RawConn) error {
		return fmt.Errorf("reuse_port: %w", errors.ErrUnsupported)
	}
}

func setBacklog(net.Listener, int) error { return fmt.Errorf("backlog: %w", errors.ErrUnsupported) }

// transparent makes listening fail.
func transparent(lc *net.ListenConfig) {
	lc.Control = func(string, string, syscall.RawConn) error {
		return fmt.Errorf("transparent: %w", errors.ErrUnsupported)
	}
}

// bindLate has d connect from that address.
func bindLate(d *net.Dialer, source netip.Addr, foreign bool) {
	d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	if foreign {
		d.Control = func(string, string, syscall.RawConn) error {
			return fmt.Errorf("%w: %w", errClientSource, errors.ErrUnsupported)
		}
	}
}
