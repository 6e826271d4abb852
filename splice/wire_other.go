//go:build !linux

package splice

import (
	"errors"
	"net/netip"
)

// AdoptWire needs Linux.
func AdoptWire(WirePolicy, func(s *Session, a, b netip.AddrPort) Handler) (int, error) {
	return 0, &Error{Op: "adopt", Err: errors.ErrUnsupported}
}

// Leave does nothing here: no session goes on without its process.
func (s *Session) Leave() {}
