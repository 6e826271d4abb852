// Package access decides who may connect, by address and by how often. Its types are safe for concurrent use, never
// block, and hold memory within bounds that are set beforehand.
package access

import "net/netip"

// Client is what counts as one client: an IPv4 address, or the /64 network of an
// IPv6 address, of which a subscriber has at least one (RFC 6177). The result is
// invalid if addr is, as that of a unix socket's client is.
func Client(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() {
		return addr
	}
	prefix, _ := addr.Prefix(64) // fails for what is no IPv6 address
	return prefix.Addr()
}
