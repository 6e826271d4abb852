// Package sockmaps finds out which sockets are in which sockmaps and sockhashes
// of the machine, and what programs these have: a socket in one behaves
// otherwise than its owner may expect (splice(2) and FIONREAD can be blind), and
// its owner is not told.
package sockmaps

import (
	"fmt"
	"net/netip"
	"strings"
)

// A Listing is what is in all the maps of the machine, whoever made them and in
// whichever network namespace their sockets are.
type Listing struct {
	Maps    []Map
	Members []Member
}

// A Map is a sockmap or a sockhash.
type Map struct {
	ID       uint32    `json:"map"`
	Name     string    `json:"name"` // may be empty, and another's too
	Type     string    `json:"type"` // SockMap or SockHash
	Programs []Program `json:"programs"`
	// Unknown says why the programs could not be asked for (before Linux 5.17).
	Unknown string `json:"programs_unknown,omitempty"`
}

// A Program is attached to a map, and has to do with each socket in it.
type Program struct {
	ID     uint32 `json:"id"`
	Name   string `json:"name"`
	Attach string `json:"attach"` // skb-verdict, stream-verdict, stream-parser or msg-verdict
}

func (m *Map) String() string {
	var programs []string
	for _, p := range m.Programs {
		programs = append(programs, fmt.Sprintf("%s %d %q", p.Attach, p.ID, p.Name))
	}
	with := "without a program"
	switch {
	case m.Unknown != "":
		with = "programs unknown: " + m.Unknown
	case programs != nil:
		with = "with " + strings.Join(programs, ", ")
	}
	return fmt.Sprintf("%s %d %q, %s", strings.ToLower(m.Type), m.ID, m.Name, with)
}

// A Member is a socket in a map.
type Member struct {
	MapID    uint32
	Inode    uint64 // 0: nobody has a descriptor of it any more, or nobody has yet
	Netns    uint32 // inode of its network namespace
	Protocol string
	// Local and Remote are invalid where there are none. An IPv4 address of an
	// IPv6 socket is an IPv4 address here.
	Local, Remote netip.AddrPort
}

// A Socket is a descriptor of a process.
type Socket struct {
	FD    int
	Inode uint64
}

// A Conn is the two ends of a connection.
type Conn struct{ A, B netip.AddrPort }

// ParseConn reads A-B, for instance 192.0.2.1:80-198.51.100.7:40000.
func ParseConn(s string) (c Conn, err error) {
	a, b, ok := strings.Cut(s, "-")
	if ok {
		if c.A, err = netip.ParseAddrPort(a); err == nil {
			c.B, err = netip.ParseAddrPort(b)
		}
	}
	if !ok || err != nil {
		return Conn{}, fmt.Errorf("connection %q: want two addresses with ports, like 192.0.2.1:80-198.51.100.7:40000 or [2001:db8::1]:80-[2001:db8::2]:40000", s)
	}
	return Conn{plain(c.A), plain(c.B)}, nil
}

// Has says whether a socket is one of the connection's ends.
func (c Conn) Has(m *Member) bool {
	return c == Conn{m.Local, m.Remote} || c == Conn{m.Remote, m.Local}
}

// plain is an address as the kernel's list has it: without a zone, and an IPv4
// address as such.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
