package proxy

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spliced-io/spliced/splice"
)

// A Need is a capability that a configuration needs (capabilities(7)), and what
// for.
type Need struct{ Capability, For string }

// Needs lists the capabilities that the configuration needs where the process is
// not root's. unprivilegedFrom is the first port that anybody may bind
// (net.ipv4.ip_unprivileged_port_start).
func (c *Config) Needs(unprivilegedFrom int) []Need {
	var needs []Need
	add := func(capability, what string) {
		for _, n := range needs {
			if n.Capability == capability {
				return
			}
		}
		needs = append(needs, Need{capability, what})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Listeners)) {
		l := c.Listeners[name]
		for _, text := range l.Address {
			addr, err := parseListenAddr(text)
			if err != nil || addr.Network != "tcp" {
				continue
			}
			_, port, err := net.SplitHostPort(addr.Address)
			if err != nil {
				continue
			}
			if n, err := strconv.Atoi(port); err == nil && n > 0 && n < unprivilegedFrom {
				add("CAP_NET_BIND_SERVICE", "to listen on "+text)
			}
		}
		if l.Socket.Transparent {
			add("CAP_NET_RAW", "for the transparent sockets of listener "+name)
		}
		var engine []string
		switch l.Engine {
		case splice.EngineWire:
			engine = splice.WireCapabilities()
		case splice.EngineSockmap:
			engine = splice.SockmapCapabilities()
		}
		for _, capability := range engine {
			add(capability, fmt.Sprintf("for the engine %s of listener %s", l.Engine, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		if c.Upstreams[name].SourceAddress.Client {
			add("CAP_NET_RAW", "to connect from clients' addresses to upstream "+name)
		}
	}
	return needs
}

// Wants lists the capabilities with which listeners of the engine auto hand connections over
// to the engine wire, where [Server.Wire] lets them: all of them are needed for that, and
// without one these connections stay with splice and copy, and say wire-denied. It is empty
// if no such listener has connections that wire could carry.
func (c *Config) Wants() []Need {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c.Listeners)) {
		l := c.Listeners[name]
		if l.Engine == splice.EngineAuto && c.wires(&l) {
			names = append(names, name)
		}
	}
	if names == nil {
		return nil
	}
	const most = 3 // that are named
	more := ""
	if n := len(names) - most; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	what := "for the engine auto of listener " + strings.Join(names[:min(most, len(names))], ", ") + more
	var wants []Need
	for _, capability := range splice.WireCapabilities() {
		wants = append(wants, Need{capability, what})
	}
	return wants
}

// wires says whether the engine wire could carry any connection of l, as far as the
// configuration tells: docs/wire.md, What is refused.
func (c *Config) wires(l *Listener) bool {
	return l.TLS == nil && !l.Socket.Transparent && !l.braked() && l.overTCP() &&
		l.reaches(c, func(u *Upstream) bool { return u.TLS == nil && !u.othersAddress(l) && u.overTCP() })
}

// braked says whether the listener's connections have a limit of bandwidth.
func (l *Listener) braked() bool {
	return l.Bandwidth != (Bandwidth{}) || l.Limits.Bandwidth != (Bandwidth{})
}

// overTCP says whether clients may come by something else than a unix socket.
func (l *Listener) overTCP() bool {
	return slices.ContainsFunc(l.Address, func(text string) bool { return !isUnix(parseListenAddr(text)) })
}

// overTCP is the same of the servers.
func (u *Upstream) overTCP() bool {
	return slices.ContainsFunc(u.Servers, func(t Target) bool { return !isUnix(parseTarget(t.Address)) })
}

func isUnix(a Addr, err error) bool { return err != nil || a.Network == "unix" }

// leads says whether the listener leads to an upstream that there is.
func (l *Listener) leads(c *Config) bool {
	return l.reaches(c, func(*Upstream) bool { return true })
}

// reaches says whether one of the upstreams that the listener leads to is such.
func (l *Listener) reaches(c *Config, such func(*Upstream) bool) bool {
	return slices.ContainsFunc(l.ways(), func(name string) bool {
		u, ok := c.Upstreams[name]
		return ok && such(&u)
	})
}

// othersAddress says whether connections from l to the upstream's servers have the address
// of a machine that is not this one at an end.
func (u *Upstream) othersAddress(l *Listener) bool {
	return u.SourceAddress.Client || u.original() && len(l.ProxyFrom) == 0
}
