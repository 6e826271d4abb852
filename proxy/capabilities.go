package proxy

import (
	"maps"
	"net"
	"slices"
	"strconv"

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
		if l.Engine == splice.EngineWire {
			for _, capability := range splice.WireCapabilities() {
				add(capability, "for the engine wire of listener "+name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		if c.Upstreams[name].SourceAddress.Client {
			add("CAP_NET_RAW", "to connect from clients' addresses to upstream "+name)
		}
	}
	return needs
}
