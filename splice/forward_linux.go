package splice

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/sys"
)

// NewTarget makes a Target of an IP address and port.
func NewTarget(addr netip.AddrPort) (Target, error) {
	a, err := sys.TCPAddress(addr)
	return Target{Name: addr.String(), Address: a}, err
}

// NewUnixTarget makes a Target of the path of a unix socket.
func NewUnixTarget(path string) (Target, error) {
	a, err := sys.UnixAddress(path)
	return Target{Name: "unix:" + path, Address: a}, err
}

// Forward accepts from ln on the event loops. It takes ln over and closes it,
// also keeping the file of a unix socket, which is then the caller's to remove.
// The options are those of [Start], without [Prefetched] and [OnEnd]; sessions
// own their connections. An error that matches [errors.ErrUnsupported] leaves
// ln as it was: it gives no descriptor, or this is not Linux.
func Forward(ln net.Listener, f Forwarding, opts ...Option) (*Forwarder, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if err := o.check(); err != nil {
		return nil, &Error{Op: "forward", Err: err}
	}
	if len(o.fromA) != 0 || len(o.fromB) != 0 || o.onEnd != nil || f.Accepted == nil || f.ConnectTimeout <= 0 {
		return nil, &Error{Op: "forward", Err: syscall.EINVAL}
	}
	if err := o.openWire(); err != nil {
		return nil, &Error{Op: "forward", Err: err}
	}
	switch ln.(type) {
	case *net.TCPListener, *net.UnixListener:
	default:
		return nil, &Error{Op: "forward", Err: fmt.Errorf("%w: %w", errNoForward, errors.ErrUnsupported)}
	}
	fd, err := dup(ln.(syscall.Conn))
	if err != nil {
		return nil, &Error{Op: "forward", Err: err}
	}
	a, err := reactor.Listen(engine.AcceptSpec{
		FD: fd, Kind: o.engine, Limits: o.limits(), Timeout: min(f.ConnectTimeout, longest),
		Admit: f.admit(),
		Accepted: func(s *engine.Session, client netip.AddrPort) ([]Target, Handler) {
			return f.Accepted(&Session{carrier: loopSession{s}, own: true}, client)
		},
		Held: f.held(), Wire: o.wire,
	})
	if err != nil {
		_ = sys.Close(fd)
		return nil, &Error{Op: "forward", Err: err}
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	_ = ln.Close()
	return &Forwarder{a}, nil
}

func (f *Forwarding) admit() func() bool {
	if f.Admit == nil {
		return func() bool { return true }
	}
	return f.Admit
}

func (f *Forwarding) held() func(error) {
	if f.Held == nil {
		return func(error) {}
	}
	return f.Held
}
