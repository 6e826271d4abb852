//go:build !linux

package proxy

import (
	"errors"
	"net/netip"
	"syscall"
)

func originalDestination(int) (netip.AddrPort, error) { return netip.AddrPort{}, errors.ErrUnsupported }

func control(syscall.RawConn, func(fd int) error) error { return errors.ErrUnsupported }
