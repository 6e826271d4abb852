//go:build !linux

package splice

import (
	"errors"
	"net/netip"
	"syscall"
)

// AdoptWire needs Linux.
func AdoptWire(WirePolicy, func(s *Session, a, b netip.AddrPort) Handler) (int, error) {
	return 0, &Error{Op: "adopt", Err: errors.ErrUnsupported}
}

// Leave does nothing here: no session goes on without its process.
func (s *Session) Leave() {}

// DialControl does nothing here: there are no spliced connections.
func DialControl(string, string, syscall.RawConn) error { return nil }

// ReservePorts does nothing here: there are no spliced connections.
func ReservePorts(netip.AddrPort, []uint16) (release func(), err error) { return func() {}, nil }
