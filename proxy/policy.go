package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/access"
	"github.com/spliced-io/spliced/proxy/internal/tlsfiles"
	"github.com/spliced-io/spliced/splice"
)

// A policy is what a listener does with connections: it is never changed, a
// reload brings another.
type policy struct {
	routes    []route
	looks     bool          // some route wants to know the first bytes
	handshake time.Duration // for them; 0: no limit
	plan      *splice.Plan  // of connections that come from another process, and whose route is gone
	life      time.Duration
	jitter    Percent
	tls       *tlsfiles.Server // nil: sessions pass through
	tlsFiles  tlsfiles.ServerFiles
	bandwidth Bandwidth
	toServer  *splice.Bandwidth
	toClient  *splice.Bandwidth
	rules     access.Rules
	rate      *access.Rate
	perSecond int
	proxies   access.Table[struct{}] // whose connections begin with a PROXY header
	proxied   bool                   // there are some
}

// A route is one of a listener's ways.
type route struct {
	name      string
	exact     map[string]bool // server names
	suffixes  []string        // .example.org
	alpn      []string
	source    []netip.Prefix
	protocols []Protocol
	upstream  *upstream // nil: reject
	crafted   bool      // more than a connect makes a connection to its servers
	original  bool      // its server is where the client wanted to go
	plan      *splice.Plan
	sockets   [2]splice.SocketOptions // of the client's connection and the server's
}

// facts are what a route may ask about.
type facts struct {
	source   netip.Addr
	protocol Protocol
	sni      string
	alpn     []string
}

// noRoute says what no route is for: whoever reads it has to write one.
func (f facts) noRoute() error {
	var of []string
	if f.protocol != "" {
		of = append(of, "protocol "+string(f.protocol))
	}
	if f.sni != "" {
		of = append(of, fmt.Sprintf("sni %q", f.sni))
	}
	if len(f.alpn) > 0 {
		of = append(of, fmt.Sprintf("alpn %q", f.alpn))
	}
	if len(of) == 0 {
		return errNoRoute
	}
	return fmt.Errorf("%w %s", errNoRoute, strings.Join(of, ", "))
}

// newPolicy makes the policy of l; before is what it takes the place of, nil for
// nothing, and whose clients stay known.
func newPolicy(l *Listener, before *policy, configs map[string]Upstream, upstreams map[string]*upstream, wire splice.WirePolicy) (*policy, error) {
	p := &policy{handshake: l.HandshakeTimeout.within(), life: l.Limits.Lifetime.within(), jitter: l.Limits.LifetimeJitter}
	options := []splice.Option{
		splice.Use(l.Engine),
		splice.IdleTimeout(l.Limits.Idle.within()),
		splice.HalfCloseTimeout(l.Limits.HalfClose.within()),
		splice.MaxLifetime(p.life),
		splice.MaxBytes(int64(l.Limits.BytesToServer), int64(l.Limits.BytesToClient)),
		splice.MaxRate(int64(l.Limits.Bandwidth.ToServer), int64(l.Limits.Bandwidth.ToClient)),
		splice.Wire(wire),
	}
	err := p.admission(l, before)
	if err == nil {
		err = p.termination(l, before)
	}
	if err != nil {
		return nil, err
	}
	p.share(l, before)
	options = append(options, splice.ShareRate(p.toServer, p.toClient))
	if p.plan, err = splice.NewPlan(DefaultConnectTimeout, options...); err != nil {
		return nil, err
	}
	routes := l.Routes
	if l.Upstream != "" {
		routes = append(slices.Clone(routes), Route{Name: lastRoute, Upstream: l.Upstream})
	}
	for i := range routes {
		r := newRoute(&routes[i], i)
		if name := routes[i].Upstream; name != "" {
			r.upstream = upstreams[name]
			u := configs[name]
			r.crafted = u.TLS != nil || u.SendProxy != "" || u.SourceAddress != Source{}
			r.original = u.original()
			r.sockets = [2]splice.SocketOptions{l.TCP.options(), u.TCP.options()}
			r.plan, err = splice.NewPlan(time.Duration(u.ConnectTimeout), append(slices.Clone(options), splice.Sockets(r.sockets[0], r.sockets[1]))...)
			if err != nil {
				return nil, err
			}
		}
		u := configs[routes[i].Upstream]
		p.looks = p.looks || routes[i].looks() || u.Balance == Maglev && u.Hash == BySNI
		p.routes = append(p.routes, r)
	}
	return p, nil
}

// admission takes over who may connect.
func (p *policy) admission(l *Listener, before *policy) (err error) {
	if p.rules, err = access.NewRules(l.Allow, l.Deny); err != nil {
		return err
	}
	if p.perSecond = l.AcceptRatePerClient; before != nil && before.perSecond == p.perSecond {
		p.rate = before.rate
	} else {
		p.rate = access.NewRate(float64(p.perSecond), p.perSecond)
	}
	p.proxied = len(l.ProxyFrom) > 0
	var entries []access.Entry[struct{}]
	for _, n := range l.ProxyFrom {
		entries = append(entries, access.Entry[struct{}]{Prefix: n})
	}
	p.proxies, err = access.NewTable(entries)
	return err
}

// termination reads the certificates of sessions that end here.
func (p *policy) termination(l *Listener, before *policy) (err error) {
	if l.TLS == nil {
		return nil
	}
	if p.tlsFiles = l.TLS.files(); before != nil && before.tls != nil && reflect.DeepEqual(before.tlsFiles, p.tlsFiles) {
		p.tls = before.tls
		_, err = p.tls.Refresh()
	} else {
		p.tls, err = tlsfiles.NewServer(p.tlsFiles)
	}
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	return nil
}

// share makes the bandwidth that all connections of the listener have together,
// those from before a reload too.
func (p *policy) share(l *Listener, before *policy) {
	if p.bandwidth = l.Bandwidth; before != nil && before.bandwidth == p.bandwidth {
		p.toServer, p.toClient = before.toServer, before.toClient
		return
	}
	if n := p.bandwidth.ToServer; n > 0 {
		p.toServer = splice.NewBandwidth(int64(n))
	}
	if n := p.bandwidth.ToClient; n > 0 {
		p.toClient = splice.NewBandwidth(int64(n))
	}
}

// fromProxy says whether a connection from there begins with a PROXY header.
func (p *policy) fromProxy(peer netip.Addr) bool {
	if !p.proxied || !peer.IsValid() {
		return p.proxied
	}
	_, ok := p.proxies.Lookup(peer)
	return ok
}

func newRoute(c *Route, i int) route {
	r := route{name: c.name(i), alpn: c.ALPN, protocols: c.Protocol}
	for _, n := range c.Source {
		r.source = append(r.source, unmapPrefix(n).Masked())
	}
	for _, name := range c.SNI {
		name = foldName(name)
		if suffix, ok := strings.CutPrefix(name, "*"); ok {
			r.suffixes = append(r.suffixes, suffix)
			continue
		}
		if r.exact == nil {
			r.exact = make(map[string]bool)
		}
		r.exact[name] = true
	}
	return r
}

func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// looks says whether the route asks about the first bytes.
func (r *Route) looks() bool { return len(r.SNI) > 0 || len(r.ALPN) > 0 || len(r.Protocol) > 0 }

// matchesAll says whether the route has no condition.
func (r *Route) matchesAll() bool { return !r.looks() && len(r.Source) == 0 }

// match returns the first route that f fulfils, nil if none.
func (p *policy) match(f facts) *route {
	for i := range p.routes {
		if p.routes[i].matches(&f) {
			return &p.routes[i]
		}
	}
	return nil
}

func (r *route) matches(f *facts) bool {
	if r.exact != nil || r.suffixes != nil {
		if f.sni == "" || !r.exact[f.sni] && !slices.ContainsFunc(r.suffixes, func(suffix string) bool {
			return len(f.sni) > len(suffix) && strings.HasSuffix(f.sni, suffix)
		}) {
			return false
		}
	}
	if r.alpn != nil && !slices.ContainsFunc(r.alpn, func(name string) bool { return slices.Contains(f.alpn, name) }) {
		return false
	}
	if r.protocols != nil && !slices.Contains(r.protocols, f.protocol) {
		return false
	}
	if r.source != nil {
		source := f.source.WithZone("")
		if !slices.ContainsFunc(r.source, func(n netip.Prefix) bool { return n.Contains(source) }) {
			return false
		}
	}
	return true
}

// lifetime is that of one connection.
func (p *policy) lifetime() time.Duration {
	if p.life == 0 {
		return 0
	}
	return jittered(p.life, p.jitter)
}

// jittered makes d longer or shorter by up to part of it, by chance.
func jittered(d time.Duration, part Percent) time.Duration {
	return d + time.Duration(part.of(float64(d))*(2*rand.Float64()-1))
}
