package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// A peer that vanished is noticed after 2 minutes and 4 × 15 s without a sign
// of life. Go's default asks every 15 s: with 10,000 idle pairs that is 1,300
// packets a second, and their answers, for nothing.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 15 * time.Second, Count: 4}

// Listen opens a listener for a [Server]. A unix socket's file that nobody
// listens on any more is replaced; one that is in use is an error, and so is a
// file that is no socket.
func Listen(ctx context.Context, addr Addr, o SocketOptions) (net.Listener, error) {
	switch addr.Network {
	case "unix":
		return listenUnix(ctx, addr, o)
	case "tcp":
	default:
		return nil, fmt.Errorf("listen on %s: only the service manager has such sockets", addr)
	}
	lc := net.ListenConfig{}
	// Go listens with MPTCP unless told otherwise. An MPTCP connection is
	// reassembled above its subflows, which the packet level can't translate,
	// and it gains a relay nothing that its operator has not asked for.
	lc.SetMultipathTCP(o.MPTCP)
	inheritKeepAlive(&lc)
	if o.ReusePort {
		reusePort(&lc)
	}
	if o.Transparent {
		transparent(&lc)
	}
	ln, err := listenWith(ctx, &lc, addr, o)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, hinted(addr, cause(err)))
	}
	return ln, nil
}

// hinted adds to why nobody can listen there what would be right.
func hinted(addr Addr, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another socket listens there", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: want one that an interface of this machine has", err)
	case errors.Is(err, syscall.EACCES):
		if ap, bad := netip.ParseAddrPort(addr.Address); bad == nil && ap.Port() < 1024 {
			return fmt.Errorf("%w: want a port from 1024 on, root, or CAP_NET_BIND_SERVICE", err)
		}
	}
	return err
}

// listenWith listens, with the backlog that o says.
func listenWith(ctx context.Context, lc *net.ListenConfig, addr Addr, o SocketOptions) (net.Listener, error) {
	ln, err := lc.Listen(ctx, addr.Network, addr.Address)
	if err == nil && o.Backlog > 0 {
		if err = setBacklog(ln, o.Backlog); err != nil {
			_ = ln.Close()
			return nil, err
		}
	}
	return ln, err
}

// cause drops the words that net.OpError puts before its error, and the name of a system
// call that is no more than the operation: whoever wraps it says them too.
func cause(err error) error {
	if op, ok := err.(*net.OpError); ok {
		err = op.Err
	}
	if call, ok := err.(*os.SyscallError); ok {
		switch call.Syscall {
		case "connect", "read", "write":
			return call.Err
		}
	}
	return err
}
