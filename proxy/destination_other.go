//go:build !linux

package proxy

import (
	"errors"
	"net/netip"
	"syscall"
)

func originalDestination(int) (target, peer netip.AddrPort, err error) {
	return netip.AddrPort{}, netip.AddrPort{}, errors.ErrUnsupported
}

func control(syscall.RawConn, func(fd int) error) error { return errors.ErrUnsupported }
