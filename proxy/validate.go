package proxy

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/spliced-io/spliced/proxy/internal/access"
	"github.com/spliced-io/spliced/splice"
)

// A Problem is something that is wrong with a [Config].
type Problem struct {
	// Path leads to the place, by keys and numbers from 0:
	// listeners, web, routes, 0, upstream.
	Path []string
	// Message says what is wrong there, and what would be right.
	Message string
}

// Error joins the place and the message.
func (p Problem) Error() string { return strings.Join(p.Path, ".") + ": " + p.Message }

// A Problems is a non-empty list of what is wrong with a [Config].
type Problems []Problem

// Error is a line for each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Check returns everything that is wrong with the configuration; nothing is
// opened or resolved for it.
func (c *Config) Check() Problems {
	var k checker
	if len(c.Listeners) == 0 {
		k.wrong("there is no listener: want at least one", "listeners")
	}
	k.positive(int64(c.MaxConnections), "max_connections")
	k.positive(int64(c.Wire.AfterBytes), "wire", "after_bytes")
	k.positive(int64(c.Wire.AfterAge), "wire", "after_age")
	addresses := make(map[string][]taken)
	for _, name := range slices.Sorted(maps.Keys(c.Listeners)) {
		l := c.Listeners[name]
		k.listener(&l, c, name, addresses)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		u := c.Upstreams[name]
		k.upstream(&u, name)
	}
	return k.problems
}

type checker struct{ problems Problems }

func (k *checker) wrong(message string, path ...string) {
	k.problems = append(k.problems, Problem{Path: path, Message: message})
}

// positive complains about a negative number, which only a program can say.
func (k *checker) positive(n int64, path ...string) {
	if n < 0 {
		k.wrong(fmt.Sprintf("%d: want 0 or more", n), path...)
	}
}

func (k *checker) bandwidth(b Bandwidth, path []string) {
	k.positive(int64(b.ToServer), at(path, "to_server")...)
	k.positive(int64(b.ToClient), at(path, "to_client")...)
}

func at(path []string, more ...any) []string {
	path = slices.Clone(path)
	for _, m := range more {
		path = append(path, fmt.Sprint(m))
	}
	return path
}

// taken is an address that a listener is at.
type taken struct {
	Addr
	text, by string
	shared   bool // with whoever says so too
}

// listener checks one, and adds its addresses to those that are taken, by their realms.
func (k *checker) listener(l *Listener, c *Config, name string, addresses map[string][]taken) {
	path := []string{"listeners", name}
	if len(l.Address) == 0 {
		k.wrong("there is no address: want one like :443", at(path, "address")...)
	}
	for i, text := range l.Address {
		where := at(path, "address", i)
		addr, err := parseListenAddr(text)
		if err != nil {
			k.wrong(err.Error(), where...)
			continue
		}
		if err := addr.oneMachine(); err != nil {
			k.wrong(err.Error(), where...)
		}
		realm := addr.canonical().realm()
		for _, t := range addresses[realm] {
			if how := addr.overlaps(t.Addr); how != apart && (how == same || !l.Socket.ReusePort || !t.shared) {
				message := fmt.Sprintf("address %q is %s %q, which listener %s takes", text, how, t.text, t.by)
				if text == t.text {
					message = fmt.Sprintf("address %q is taken by listener %s", text, t.by)
				}
				want := "want one that is free"
				if how == same && addr.canonical().everywhere() && addr.Network == "tcp" && text != t.text {
					want = "both are every address of IPv4 and IPv6: want one of them"
				}
				k.wrong(message+": "+want, where...)
				break
			}
		}
		addresses[realm] = append(addresses[realm], taken{addr, text, name, l.Socket.ReusePort})
	}
	if l.Upstream == "" && len(l.Routes) == 0 {
		k.wrong("there is no way to go: want an upstream, or routes", path...)
	}
	if l.Upstream != "" {
		k.known(l.Upstream, c, at(path, "upstream"))
	}
	for i := range l.Routes {
		k.route(&l.Routes[i], c, at(path, "routes", i))
	}
	k.routes(l, path)
	for i := range l.Routes {
		if l.Routes[i].matchesAll() && (i < len(l.Routes)-1 || l.Upstream != "") {
			k.wrong("this route matches every connection: none can get to what comes after it: want it last, or with a condition", at(path, "routes", i)...)
			break
		}
	}
	k.loops(l, c, name)
	k.tls(l, c, path)
	k.transparent(l, c, path)
	k.tcp(&l.TCP, at(path, "tcp"))
	k.socket(l, at(path, "socket"))
	if _, err := access.NewRules(l.Allow, l.Deny); err != nil {
		k.wrong(err.Error(), at(path, "deny")...)
	}
	if _, err := access.NewRules(l.ProxyFrom, nil); err != nil {
		k.wrong(err.Error(), at(path, "proxy_from")...)
	}
	k.percent(l.Limits.LifetimeJitter, at(path, "limits", "lifetime_jitter"))
	k.positive(int64(l.MaxConnections), at(path, "max_connections")...)
	k.positive(int64(l.MaxConnectionsPerClient), at(path, "max_connections_per_client")...)
	k.positive(int64(l.AcceptRatePerClient), at(path, "accept_rate_per_client")...)
	k.positive(int64(l.Socket.Backlog), at(path, "socket", "backlog")...)
	k.positive(int64(l.Limits.BytesToServer), at(path, "limits", "bytes_to_server")...)
	k.positive(int64(l.Limits.BytesToClient), at(path, "limits", "bytes_to_client")...)
	k.bandwidth(l.Bandwidth, at(path, "bandwidth"))
	k.bandwidth(l.Limits.Bandwidth, at(path, "limits", "bandwidth"))
}

// socket complains about options that none of the listener's sockets can have.
func (k *checker) socket(l *Listener, path []string) {
	var networks []string
	for _, text := range l.Address {
		addr, err := parseListenAddr(text)
		if err != nil {
			return // told already
		}
		networks = append(networks, addr.Network)
	}
	if slices.Contains(networks, "tcp") {
		return
	}
	o := l.Socket
	if o.MPTCP {
		k.wrong("only TCP sockets that are opened here speak Multipath TCP: want an address like :443", at(path, "mptcp")...)
	}
	if o.ReusePort {
		k.wrong("only TCP sockets that are opened here can share an address: want one like :443", at(path, "reuse_port")...)
	}
	if o.Backlog > 0 && !slices.Contains(networks, "unix") {
		k.wrong("the service manager has said how many may wait: want Backlog= in the .socket unit, and none here", at(path, "backlog")...)
	}
}

// loops complains about servers that are the listener itself: each connection
// would come back as a client, until none is left.
func (k *checker) loops(l *Listener, c *Config, name string) {
	for _, upstream := range slices.Compact(slices.Sorted(slices.Values(l.ways()))) {
		for i, server := range c.Upstreams[upstream].Servers {
			to, err := parseTarget(server.Address)
			if err == nil && slices.ContainsFunc(l.Address, func(text string) bool {
				at, err := parseListenAddr(text)
				return err == nil && at.takes(to)
			}) {
				k.wrong(fmt.Sprintf("server %s is listener %s itself: its connections would come back for ever: want another server", server.Address, name),
					"upstreams", upstream, "servers", fmt.Sprint(i))
			}
		}
	}
}

// takes says whether connections to another address certainly come to a listener
// at this one.
func (a Addr) takes(to Addr) bool {
	if a == to {
		return a.Network == "tcp" || a.Network == "unix"
	}
	_, port, err := net.SplitHostPort(a.Address)
	host, toPort, toErr := net.SplitHostPort(to.Address)
	if a.Network != "tcp" || to.Network != "tcp" || err != nil || toErr != nil || port != toPort {
		return false
	}
	// Names are not resolved, but this one is no other machine's (RFC 6761, section 6.3).
	return a.canonical().everywhere() && (parseIP(host).IsLoopback() || strings.EqualFold(strings.TrimSuffix(host, "."), "localhost"))
}

// tls checks the end of TLS sessions, and what can carry one that ends here.
func (k *checker) tls(l *Listener, c *Config, path []string) {
	if t := l.TLS; t != nil {
		where := at(path, "tls")
		if len(t.Certificates) == 0 {
			k.wrong("there is no certificate: want at least one", at(where, "certificates")...)
		}
		k.protocols(t.ALPN, at(where, "alpn"))
		if t.ClientCA != "" && t.ClientCertificate == "" { // who says none has thought of it
			k.wrong("no certificate is asked of clients: want client_certificate: optional, required or none", at(where, "client_ca")...)
		}
		if t.ClientCA == "" && t.ClientCertificate != "" && t.ClientCertificate != "none" {
			k.wrong("want the certificates that those of clients must lead to", at(where, "client_ca")...)
		}
	}
	switch l.Engine {
	case splice.EngineAuto, splice.EngineCopy:
		return
	}
	ends := l.TLS != nil
	for _, name := range l.ways() {
		ends = ends || c.Upstreams[name].TLS != nil
	}
	if ends {
		k.wrong(fmt.Sprintf("a TLS session that ends here can only be copied: want auto or copy, not %s", l.Engine), at(path, "engine")...)
	}
	if l.Engine != splice.EngineWire {
		return
	}
	if l.braked() {
		k.wrong("a bandwidth is kept by sockets alone: want another engine than wire, or no bandwidth", at(path, "engine")...)
	}
	if !l.overTCP() || l.leads(c) && !l.reaches(c, (*Upstream).overTCP) {
		k.wrong("connections of unix sockets can't be handed over: want another engine than wire", at(path, "engine")...)
	}
}

// ways are the upstreams of the routes, and that of what comes to none of them; "" is
// none.
func (l *Listener) ways() (names []string) {
	for _, r := range l.Routes {
		names = append(names, r.Upstream)
	}
	return append(names, l.Upstream)
}

func (k *checker) route(r *Route, c *Config, path []string) {
	for i, name := range r.SNI {
		if err := checkServerName(name); err != nil {
			k.wrong(err.Error(), at(path, "sni", i)...)
		}
	}
	k.protocols(r.ALPN, at(path, "alpn"))
	for i, p := range r.Source {
		if !p.IsValid() {
			k.wrong("want a network like 10.0.0.0/8", at(path, "source", i)...)
		}
	}
	if len(r.Protocol) > 0 && (len(r.SNI) > 0 || len(r.ALPN) > 0) && !slices.Contains(r.Protocol, ProtocolTLS) {
		k.wrong("only TLS clients send names (sni, alpn): want protocol tls, or none", at(path, "protocol")...)
	}
	switch {
	case r.Reject && r.Upstream != "":
		k.wrong("reject and upstream exclude each other: want one of them", at(path, "reject")...)
	case !r.Reject && r.Upstream == "":
		k.wrong("the route leads nowhere: want an upstream, or reject: true", path...)
	case r.Upstream != "":
		k.known(r.Upstream, c, at(path, "upstream"))
	}
}

// known complains about an upstream that there is not.
func (k *checker) known(name string, c *Config, path []string) {
	if _, ok := c.Upstreams[name]; ok {
		return
	}
	names := slices.Sorted(maps.Keys(c.Upstreams))
	if len(names) == 0 {
		k.wrong(fmt.Sprintf("there is no upstream %q: there is none at all: want it below upstreams", name), path...)
		return
	}
	k.wrong(fmt.Sprintf("there is no upstream %q: want one of %s", name, strings.Join(names, ", ")), path...)
}

// checkServerName accepts names of hosts, *. before them for any name that ends
// so.
func checkServerName(name string) error {
	rest := strings.TrimPrefix(name, "*.")
	if rest == "" || strings.Contains(rest, "*") || !validHost(rest) || strings.HasPrefix(rest, ".") {
		return fmt.Errorf("%q is no name of a server: want one like www.example.org or *.example.org", name)
	}
	if _, err := netip.ParseAddr(rest); err == nil {
		return fmt.Errorf("%q is an address: clients send names only (RFC 6066): want one like www.example.org", name)
	}
	return nil
}

func (k *checker) percent(p Percent, path []string) {
	if p > 100 {
		k.wrong(fmt.Sprintf("%g%%: want 0%% to 100%%", float64(p)), path...)
	}
}

const maxWeight = 1000

// parseListenAddr is [ParseAddr] with systemd and systemd:NAME too.
func parseListenAddr(s string) (Addr, error) {
	if s == "systemd" {
		return Addr{Network: "systemd"}, nil
	}
	if name, ok := strings.CutPrefix(s, "systemd:"); ok {
		if name == "" {
			return Addr{}, fmt.Errorf("address %q names no socket: want systemd:NAME or systemd", s)
		}
		return Addr{Network: "systemd", Address: name}, nil
	}
	return ParseAddr(s)
}

// parseTarget is [ParseAddr] with srv:NAME and original-destination too, for what
// can be connected to.
func parseTarget(s string) (Addr, error) {
	switch name, _, more := strings.Cut(s, ":"); {
	case s == OriginalDestination:
		return Addr{Network: original}, nil
	case more && name == OriginalDestination:
		return Addr{}, fmt.Errorf("address %q: the port is the one that the client has dialled: want %s", s, OriginalDestination)
	}
	if name, ok := strings.CutPrefix(s, "srv:"); ok {
		if name == "" || !validHost(name) {
			return Addr{}, fmt.Errorf("address %q: want srv:_service._tcp.example.org", s)
		}
		return Addr{Network: "srv", Address: name}, nil
	}
	addr, err := ParseAddr(s)
	if err != nil {
		return Addr{}, err
	}
	if addr.Network == "tcp" {
		if host, port, err := net.SplitHostPort(addr.Address); err != nil || port == "0" {
			return Addr{}, fmt.Errorf("address %q: nothing can be reached at port 0: want a port from 1 to 65535", s)
		} else if host == "" {
			addr.Address = "127.0.0.1" + addr.Address // as net.Dial has it
		}
	}
	return addr, nil
}
