package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/spliced-io/spliced/proxy/internal/setting"
	"github.com/spliced-io/spliced/splice"
)

// OriginalDestination is the address of a [Target] that is another one for each
// client: the one that the client has dialled. nftables has brought the connection
// here, by tproxy to a listener whose socket is transparent or by redirect, or a
// proxy of [Listener.ProxyFrom] has, whose header names it.
//
// It stands alone in its upstream: there is nothing to choose between, to resolve or
// to check, and it is never ejected. What the client has dialled is not reached if
// nobody has sent the connection here, and that is the listener itself; nor if the
// connection is one of this server's own that comes back: [NoDestination].
const OriginalDestination = "original-destination"

// original is the network of its [Addr].
const original = "original"

var (
	errNoDestination = errors.New("there is no original destination")
	errClientSource  = errors.New("can't connect from the client's address")
)

// original says whether the upstream's server is where its clients wanted to go.
func (u *Upstream) original() bool {
	return len(u.Servers) == 1 && u.Servers[0].Address == OriginalDestination
}

// original complains about what makes no sense beside an original destination.
func (k *checker) original(u *Upstream, path []string) {
	var where int
	for where = range u.Servers {
		if u.Servers[where].Address == OriginalDestination {
			break
		}
	}
	if len(u.Servers) == 0 || u.Servers[where].Address != OriginalDestination {
		return
	}
	wrong := func(what string, more ...any) {
		k.wrong(fmt.Sprintf("%s is whatever each client has dialled: %s: want no %v", OriginalDestination, what, more[len(more)-1]), at(path, more...)...)
	}
	if len(u.Servers) > 1 {
		k.wrong(OriginalDestination+" is whatever each client has dialled: want no other server beside it", at(path, "servers", where)...)
	}
	if u.Balance != "" && u.Balance != RoundRobin {
		wrong(fmt.Sprintf("%s has nothing to choose from", u.Balance), "balance")
	}
	if u.Health != nil {
		wrong("there is no server to check", "health")
	}
	if u.Hash != "" && u.Hash != BySource {
		wrong(fmt.Sprintf("hash %s has nothing to choose from", u.Hash), "hash")
	}
	// The configuration may be complete with defaults.
	said, usual := *u, Upstream{Servers: make([]Target, 1)}
	setting.Fill(&said)
	setting.Fill(&usual)
	if said.Attempts != usual.Attempts {
		wrong("there is no other server to try", "attempts")
	}
	if said.Servers[where].Weight != usual.Servers[0].Weight {
		wrong("there is no other server to share with", "servers", where, "weight")
	}
	if !sameResolve(said.Resolve, usual.Resolve) {
		wrong("there is no name to resolve", "resolve")
	}
	said.Ejection.Off = false
	if said.Ejection != usual.Ejection {
		wrong("it is never ejected", "ejection")
	}
	if u.SlowStart > 0 {
		wrong("there is no server that could come up slowly", "slow_start")
	}
	if u.PanicThreshold > 0 {
		wrong("there are no servers of which a part could be down", "panic_threshold")
	}
}

// transparent complains about what can't be with the addresses of others.
func (k *checker) transparent(l *Listener, c *Config, path []string) {
	if l.Socket.Transparent {
		where := at(path, "socket", "transparent")
		for _, text := range l.Address {
			switch addr, err := parseListenAddr(text); {
			case err != nil:
			case addr.Network == "unix":
				k.wrong(fmt.Sprintf("address %q is a unix socket, which tproxy sends nothing to: want host:port or :port", text), where...)
			case addr.Network == "systemd":
				k.wrong("the service manager makes the socket: want Transparent=yes in its unit, and nothing here", where...)
			}
		}
		if l.Socket.MPTCP {
			k.wrong("tproxy and Multipath TCP exclude each other: want one of them", where...)
		}
	}
	wire := l.Engine == splice.EngineWire
	if wire && l.Socket.Transparent {
		k.wrong("connections to others' addresses can't be handed over: want another engine than wire", at(path, "engine")...)
		wire = false
	}
	for _, name := range l.ways() {
		u := c.Upstreams[name]
		if wire && u.othersAddress(l) {
			k.wrong(fmt.Sprintf("connections of upstream %s, under others' addresses, can't be handed over: want another engine than wire", name), at(path, "engine")...)
			wire = false
		}
		if u.original() && l.Socket.MPTCP {
			k.wrong(fmt.Sprintf("where clients of upstream %s wanted to go is not known of Multipath TCP: want no mptcp", name), at(path, "socket", "mptcp")...)
		}
		if u.original() && len(l.ProxyFrom) == 0 {
			for i, text := range l.Address {
				if addr, err := parseListenAddr(text); err == nil && addr.Network == "unix" {
					k.wrong(fmt.Sprintf("who comes to a unix socket has dialled no %s: want proxy_from, or another upstream than %s", OriginalDestination, name), at(path, "address", i)...)
				}
			}
		}
	}
}

// aim finds out where the client wanted to go; raw is its connection.
func (c *conn) aim(raw syscall.RawConn) error {
	if c.target.IsValid() {
		return nil // by one that could not go on at once
	}
	var target, peer netip.AddrPort
	switch err := control(raw, func(fd int) (err error) {
		target, peer, err = originalDestination(fd)
		return err
	}); {
	case errors.Is(err, syscall.ENOTCONN):
		return splice.ErrClientLeft
	case err != nil:
		return fmt.Errorf("%w: %w", errNoDestination, err)
	}
	if h := c.header; h != nil && h.Destination.IsValid() {
		target = h.Destination
	}
	switch ip := target.Addr(); {
	case !ip.IsValid():
		return fmt.Errorf("%w: the client has come by a unix socket", errNoDestination)
	case ip.IsUnspecified(), ip.IsMulticast(), target.Port() == 0:
		return fmt.Errorf("%w: nothing can be reached at %s", errNoDestination, target)
	}
	s := c.listener.server
	s.mu.Lock()
	addrs := c.listener.addrs()
	own := s.outward[wayOf(peer, target)] > 0
	s.mu.Unlock()
	if own {
		return fmt.Errorf("%w: the connection to %s is this proxy's own, and was sent back here: want a rule that lets the proxy's connections go", errNoDestination, target)
	}
	if listensAt(addrs, target) {
		return fmt.Errorf("%w: %s is the listener itself: want a client that dials another address, and a rule (tproxy, redirect) that sends it here", errNoDestination, target)
	}
	c.target = target
	return nil
}

// aimBelow is aim for a connection of package net, or a session in it.
func (c *conn) aimBelow(client net.Conn) error {
	sc, ok := below(client).(syscall.Conn)
	if !ok {
		return fmt.Errorf("%w: the client's connection has no descriptor", errNoDestination)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	return c.aim(raw)
}

// listensAt says whether a connection of this machine to that address would come to
// one of the listening sockets.
func listensAt(addrs []net.Addr, target netip.AddrPort) bool {
	for _, a := range addrs {
		at := addrPort(a)
		if !at.IsValid() || at.Port() != target.Port() {
			continue
		}
		if at.Addr().IsUnspecified() || at.Addr().WithZone("") == target.Addr().WithZone("") {
			// A transparent socket may be bound to another machine's address.
			return isLocal(target.Addr())
		}
	}
	return false
}

// isLocal says whether an address is this machine's: then the kernel goes there
// from that very address.
func isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	// Nothing is sent.
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 9)))
	if err != nil {
		return false // no way leads there
	}
	defer c.Close()
	from := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
	return from == ip.WithZone("") || from.IsLoopback()
}

// targetAt is where the event loops connect to for c: m's address, or c's own.
func (c *conn) targetAt(m *member) (splice.Target, error) {
	if m.dial.Network != original {
		return m.target, nil
	}
	t, err := splice.NewTarget(c.target)
	if err != nil { // the zone of its address has gone
		return t, fmt.Errorf("connect to %s: %w", c.target, err)
	}
	return t, nil
}

// dialAddr is what is dialled for c, which is the same for package net.
func (c *conn) dialAddr(m *member) Addr {
	if m.dial.Network != original {
		return m.dial
	}
	return Addr{Network: "tcp", Address: c.target.String()}
}

// nameOf is what errors call the server m of c.
func (c *conn) nameOf(m *member) string {
	if m.dial.Network != original {
		return m.name
	}
	return c.target.String()
}

// dialled is the address that c's server was found at.
func (c *conn) dialled() string {
	if c.member.dial.Network != original {
		return c.member.dialled()
	}
	return c.target.String()
}

// An outwardWay is from where and to where this server has connected. Another one may come from the same
// address, to somewhere else: ports are shared by the clients of a machine, and with clients whose
// addresses the server connects from.
type outwardWay struct{ from, to netip.AddrPort }

func wayOf(from, to netip.AddrPort) outwardWay {
	plain := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	}
	return outwardWay{plain(from), plain(to)}
}

// departs notes that c's server is dialled from that address, by which, and by where it leads, a connection
// to an original destination is known should it come back. s.mu is held.
func (s *Server) departs(c *conn, original bool, local netip.AddrPort) {
	s.arrived(c)
	if c.local = local; !original || !local.IsValid() {
		return
	}
	if s.outward == nil {
		s.outward = make(map[outwardWay]int)
	}
	s.outward[wayOf(local, c.target)]++
	c.outward = true
}

// arrived forgets that. s.mu is held.
func (s *Server) arrived(c *conn) {
	if !c.outward {
		return
	}
	c.outward = false
	way := wayOf(c.local, c.target)
	if s.outward[way]--; s.outward[way] <= 0 {
		delete(s.outward, way)
	}
}
