package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/spliced-io/spliced/proxy/internal/detect"
)

// routes complains about those that nobody comes to, or that can't be told apart.
func (k *checker) routes(l *Listener, path []string) {
	names := make(map[string]int)
	asking := make(map[string][]int) // routes, by each of their server names, "" for none
	for i := range l.Routes {
		r, where := &l.Routes[i], at(path, "routes", i)
		name := r.name(i)
		if first, twice := names[name]; twice {
			k.wrong(fmt.Sprintf("route %q is there twice: see number %d; want another name", name, first+1), where...)
		} else {
			names[name] = i
		}
		if len(name) > maxRoute || strings.ContainsFunc(name, unicode.IsControl) {
			k.wrong(fmt.Sprintf("route %.40q: want a name of %d bytes at most, without control characters", name, maxRoute), at(where, "name")...)
		}
		if l.Upstream != "" && r.Name == lastRoute {
			k.wrong(fmt.Sprintf("route %q is what leads to the listener's own upstream: want another name", lastRoute), where...)
		}
		for _, n := range r.rivals(asking) {
			if o := &l.Routes[n]; !o.matchesAll() && o.covers(r) { // which is told already
				k.wrong(fmt.Sprintf("nobody comes to this route: number %d has all of its clients: want it before that one, or not at all", n+1), where...)
				break
			}
		}
		for _, name := range r.SNI {
			asking[foldName(name)] = append(asking[foldName(name)], i)
		}
		if len(r.SNI) == 0 {
			asking[""] = append(asking[""], i)
		}
		if l.HandshakeTimeout < 0 && slices.Contains(r.Protocol, Protocol(detect.Silent.String())) {
			k.wrong("nobody is silent: handshake_timeout never comes: want one, or not this protocol", at(where, "protocol")...)
		}
		if len(r.Source) > 0 && !l.overTCP() && len(l.ProxyFrom) == 0 {
			k.wrong("clients of a unix socket have no address: want proxy_from, or no source", at(where, "source")...)
		}
		if l.TLS == nil {
			continue
		}
		if len(r.Protocol) > 0 && !slices.Contains(r.Protocol, ProtocolTLS) {
			k.wrong("where TLS ends only TLS clients are served: want protocol tls, or none", at(where, "protocol")...)
		}
		for n, name := range r.ALPN {
			if slices.Contains(l.TLS.ALPN, name) {
				continue
			}
			message := fmt.Sprintf("%q is not negotiated: want it in tls.alpn", name)
			if len(l.TLS.ALPN) > 0 {
				message += ", which has " + strings.Join(l.TLS.ALPN, ", ")
			}
			k.wrong(message, at(where, "alpn", n)...)
		}
	}
}

// rivals are those routes that may cover r: there can be thousands.
func (r *Route) rivals(asking map[string][]int) []int {
	list := slices.Clone(asking[""])
	if len(r.SNI) == 0 {
		return list
	}
	name := foldName(r.SNI[0])
	list = append(list, asking[name]...)
	for rest := strings.TrimPrefix(name, "*."); ; {
		_, above, more := strings.Cut(rest, ".")
		if !more {
			return list
		}
		list = append(list, asking["*."+above]...)
		rest = above
	}
}

// maxRoute bounds the names of routes, which are in logs.
const maxRoute = 100

// lastRoute is the name of the way to a listener's own upstream.
const lastRoute = "default"

// name is that of a listener's route number i, from 0.
func (r *Route) name(i int) string {
	if r.Name != "" {
		return r.Name
	}
	return strconv.Itoa(i + 1)
}

// protocols complains about those that TLS can't name (RFC 7301 section 3.1).
func (k *checker) protocols(names []string, path []string) {
	for i, name := range names {
		if name == "" || len(name) > 255 {
			k.wrong(fmt.Sprintf("%.40q is no protocol: want one like h2, of 255 bytes at most", name), at(path, i)...)
		}
	}
}

// covers says whether r has every connection that o would have.
func (r *Route) covers(o *Route) bool {
	return covered(r.SNI, o.SNI, nameCovers) &&
		covered(r.ALPN, o.ALPN, func(a, b string) bool { return a == b }) &&
		covered(r.Source, o.Source, networkCovers) &&
		covered(r.Protocol, o.protocols(), func(a, b Protocol) bool { return a == b })
}

// covered says whether each condition of others is one of ours too; without any of ours
// there is nothing to be.
func covered[T any](ours, others []T, covers func(a, b T) bool) bool {
	if len(ours) == 0 {
		return true
	}
	return len(others) > 0 && !slices.ContainsFunc(others, func(o T) bool {
		return !slices.ContainsFunc(ours, func(a T) bool { return covers(a, o) })
	})
}

// protocols are those that a client of the route may speak, none if it may be any: only TLS
// has names.
func (r *Route) protocols() []Protocol {
	if len(r.SNI) > 0 || len(r.ALPN) > 0 {
		return []Protocol{ProtocolTLS}
	}
	return r.Protocol
}

func nameCovers(a, b string) bool {
	a, b = foldName(a), foldName(b)
	suffix, wild := strings.CutPrefix(a, "*")
	return a == b || wild && strings.HasSuffix(b, suffix)
}

func foldName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func networkCovers(a, b netip.Prefix) bool {
	a, b = unmapPrefix(a), unmapPrefix(b)
	return a.Bits() <= b.Bits() && a.Contains(b.Addr())
}
