package main

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config"
)

// describe writes what a configuration comes to: the routes in their order, the
// capabilities that it needs or has a use for, and the descriptors.
func describe(w io.Writer, file *config.File) {
	for _, name := range slices.Sorted(maps.Keys(file.Listeners)) {
		l := file.Listeners[name]
		fmt.Fprintf(w, "listener %s on %s\n", name, strings.Join(l.Address, ", "))
		n := 0
		for _, r := range l.Routes {
			n++
			fmt.Fprintf(w, "  %d. %s -> %s\n", n, conditions(&r), goal(&r))
		}
		if l.Upstream != "" {
			n++
			fmt.Fprintf(w, "  %d. everything else -> upstream %s\n", n, l.Upstream)
		} else if last := l.Routes[len(l.Routes)-1]; conditions(&last) != anything {
			fmt.Fprintf(w, "  %d. everything else -> reset\n", n+1)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(file.Upstreams)) {
		u := file.Upstreams[name]
		checks := "not checked"
		if u.Health != nil {
			checks = "checked"
		}
		fmt.Fprintf(w, "upstream %s: %d servers, %s, %s\n", name, len(u.Servers), u.Balance, checks)
	}
	needs := file.Needs(unprivilegedFrom())
	if len(needs) == 0 {
		fmt.Fprintln(w, "capabilities: none needed")
	}
	for _, n := range needs {
		fmt.Fprintf(w, "capability %s %s\n", n.Capability, n.For)
	}
	if text := wanted(file, needs); text != "" {
		fmt.Fprintln(w, text)
	}
	describeOthers(w, file)
	room := file.RoomForConns()
	fmt.Fprintf(w, "descriptors: the limit of open files (ulimit -n) has room for %d connections\n", room)
	if file.MaxConnections > room {
		fmt.Fprintf(w, "warning: max_connections is %d: there is room for %d, beside those that wire carries\n", file.MaxConnections, room)
	}
}

const anything = "everything"

func conditions(r *proxy.Route) string {
	var all []string
	add := func(what string, values []string) {
		if len(values) > 0 {
			all = append(all, what+" "+strings.Join(values, " or "))
		}
	}
	add("sni", r.SNI)
	add("alpn", r.ALPN)
	add("source", texts(r.Source, netip.Prefix.String))
	add("protocol", texts(r.Protocol, func(p proxy.Protocol) string { return string(p) }))
	if all == nil {
		return anything
	}
	return strings.Join(all, " and ")
}

func texts[T any](list []T, text func(T) string) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = text(v)
	}
	return out
}

func goal(r *proxy.Route) string {
	if r.Reject {
		return "reset"
	}
	return "upstream " + r.Upstream
}

// unprivilegedFrom is the first port that anybody may bind.
func unprivilegedFrom() int {
	const usual = 1024
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return usual // another system
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return usual
	}
	return n
}
