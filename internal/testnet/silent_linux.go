package testnet

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// A Silent server answers no SYN: its backlog is full. Addr is on 127.0.0.1.
type Silent struct {
	Addr string
	fd   int
	full int // connections in the backlog
}

// NewSilent makes one, until the test ends.
func NewSilent(t TB) *Silent {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatalf("listen: %v", err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatalf("getsockname: %v", err)
	}
	in4 := sa.(*syscall.SockaddrInet4)
	s := &Silent{fd: fd, Addr: netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port)).String()}
	for {
		c, err := net.DialTimeout("tcp", s.Addr, 300*time.Millisecond)
		if err != nil {
			return s
		}
		t.Cleanup(func() { _ = c.Close() })
		s.full++
	}
}

// Answer empties the backlog, and returns the next connection after that.
func (s *Silent) Answer(t TB) (fd int) {
	t.Helper()
	for range s.full + 1 {
		if fd > 0 {
			_ = syscall.Close(fd)
		}
		var err error
		if fd, _, err = syscall.Accept(s.fd); err != nil {
			t.Fatalf("accept: %v", err)
		}
	}
	return fd
}
