package probe

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// mptcp opens a socket of Multipath TCP (Linux 5.6).
func mptcp() Capability {
	const name = "mptcp"
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, sys.ProtocolMPTCP)
	if err != nil {
		return failed(name, fmt.Errorf("socket: %w", err))
	}
	_ = sys.Close(fd)
	return yes(name, "a socket was opened")
}

// tcpRepair switches a socket to TCP_REPAIR, which closes it without a word
// to its peer: what the wire engine needs.
func tcpRepair() Capability {
	const name = "tcp-repair"
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return failed(name, missing(fmt.Errorf("socket: %w", err)))
	}
	defer func() { _ = sys.Close(fd) }()
	err = sys.SetTCPRepair(fd, true)
	switch {
	case err == nil:
		_ = sys.SetTCPRepair(fd, false)
		return yes(name, "the option was set")
	case errors.Is(err, syscall.EPERM):
		return no(name, fmt.Sprintf("setsockopt: %v: CAP_NET_ADMIN is missing", err))
	}
	return failed(name, fmt.Errorf("setsockopt: %w", err))
}

// kernelTLS asks for the protocol that encrypts records in the kernel
// (CONFIG_TLS, Linux 4.13). The socket has no connection, which only a kernel
// that has the protocol objects to (tls_init in net/tls/tls_main.c).
func kernelTLS() Capability {
	const name = "ktls"
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return failed(name, missing(fmt.Errorf("socket: %w", err)))
	}
	defer func() { _ = sys.Close(fd) }()
	switch err := sys.SetULP(fd, "tls"); {
	case err == nil, errors.Is(err, syscall.ENOTCONN):
		return yes(name, "the kernel knows the protocol")
	case errors.Is(err, syscall.ENOENT):
		return no(name, "this kernel has no TLS (CONFIG_TLS), or its module is not loaded")
	default:
		return failed(name, fmt.Errorf("setsockopt: %w", err))
	}
}
