//go:build !linux

package splice

import (
	"errors"
	"net/netip"
	"syscall"
)

// AdoptWire needs Linux.
func AdoptWire(WirePolicy, Adoption) (int, error) {
	return 0, &Error{Op: "adopt", Err: errors.ErrUnsupported}
}

// KeepWire needs Linux.
func KeepWire(WirePolicy) (release func(), err error) {
	return func() {}, &Error{Op: "load wire", Err: errors.ErrUnsupported}
}

// PrepareWire needs Linux.
func PrepareWire(WirePolicy) (WireTable, error) {
	return WireTable{}, &Error{Op: "prepare to adopt", Err: errors.ErrUnsupported}
}

// WireTableOf finds none here.
func WireTableOf(WirePolicy) (WireTable, error) { return WireTable{}, nil }

// LeaveWire does nothing here: there are no instances.
func LeaveWire(WirePolicy) []Flow { return nil }

// Flow finds none here: no session goes on without its process.
func (s *Session) Flow() (Flow, Past, bool) { return Flow{}, Past{}, false }

// Note finds none here: no session is adopted.
func (s *Session) Note() string { return "" }

// Leave does nothing here: no session goes on without its process.
func (s *Session) Leave() {}

// DialControl does nothing here: there are no spliced connections.
func DialControl(string, string, syscall.RawConn) error { return nil }

// ReservePorts does nothing here: there are no spliced connections.
func ReservePorts(netip.AddrPort, []uint16) (release func(), err error) { return func() {}, nil }
