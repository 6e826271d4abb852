//go:build !linux

package splice

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// NewTarget makes a Target of an IP address and port.
func NewTarget(addr netip.AddrPort) (Target, error) { return Target{Name: addr.String()}, nil }

// NewUnixTarget makes a Target of the path of a unix socket.
func NewUnixTarget(path string) (Target, error) { return Target{Name: "unix:" + path}, nil }

// Forward needs Linux: its error matches [errors.ErrUnsupported], and ln is as
// it was.
func Forward(net.Listener, Forwarding) (*Forwarder, error) {
	return nil, &Error{Op: "forward", Err: fmt.Errorf("%w: %w", errNoForward, errors.ErrUnsupported)}
}

type planned struct{}

func (p *Plan) prepare(time.Duration) error { return nil }
