package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/setting"
)

func (k *checker) upstream(u *Upstream, name string) {
	path := []string{"upstreams", name}
	if len(u.Servers) == 0 {
		k.wrong("there are no servers: want at least one", at(path, "servers")...)
	}
	seen := make(map[Addr]int)
	primary := false
	for i := range u.Servers {
		t := &u.Servers[i]
		where := at(path, "servers", i)
		addr, err := parseTarget(t.Address)
		if err == nil {
			err = addr.oneMachine()
		}
		if err != nil {
			k.wrong(err.Error(), where...)
		}
		if first, twice := seen[addr.canonical()]; twice {
			k.wrong(fmt.Sprintf("server %q is there twice: see number %d; want it once; a weight gives it more", t.Address, first+1), where...)
		} else if err == nil {
			seen[addr.canonical()] = i
		}
		primary = primary || !t.Backup
		if t.Weight < 0 || t.Weight > maxWeight {
			k.wrong(fmt.Sprintf("weight %d: want 1 to %d", t.Weight, maxWeight), at(where, "weight")...)
		}
		if source := u.SourceAddress.Addr; source.IsValid() && addr.Network == "tcp" {
			if ap, err := netip.ParseAddrPort(addr.Address); err == nil && ap.Addr().Unmap().Is4() != source.Unmap().Is4() {
				k.wrong(fmt.Sprintf("server %q can't be reached from %s: the families differ: want an address of the server's", t.Address, source), at(path, "source_address")...)
			}
		}
		if u.SourceAddress.Client && addr.Network == "unix" {
			k.wrong(fmt.Sprintf("server %q is a unix socket, which clients' addresses mean nothing to: want no source_address, or another server", t.Address), at(path, "source_address")...)
		}
	}
	k.original(u, path)
	if !primary && len(u.Servers) > 0 {
		k.wrong("every server is a backup: want one that is not", at(path, "servers")...)
	}
	if u.Hash == BySNI && u.Balance != Maglev {
		k.wrong("only balance: maglev hashes anything: want that, or no hash", at(path, "hash")...)
	}
	k.source(u, path)
	k.resolve(&u.Resolve, at(path, "resolve"))
	if u.TLS != nil {
		k.upstreamTLS(u, at(path, "tls"))
	}
	if u.OnDown != "" && u.OnDown != KeepSessions && u.Health == nil {
		k.wrong("nobody finds a server down: want health, or no on_down", at(path, "on_down")...)
	}
	ejection := u.Ejection
	setting.Fill(&ejection)
	if ejection.Time > ejection.MaxTime {
		k.wrong(fmt.Sprintf("time %v is more than max_time, %v: want a longer max_time, or a shorter time", time.Duration(ejection.Time), time.Duration(ejection.MaxTime)), at(path, "ejection", "time")...)
	}
	k.positive(int64(u.Attempts), at(path, "attempts")...)
	k.positive(int64(u.MaxConnections), at(path, "max_connections")...)
	k.positive(int64(u.Queue.Limit), at(path, "queue", "limit")...)
	k.positive(int64(u.Ejection.Failures), at(path, "ejection", "failures")...)
	k.tcp(&u.TCP, at(path, "tcp"))
	k.percent(u.PanicThreshold, at(path, "panic_threshold"))
	k.percent(u.Ejection.MaxShare, at(path, "ejection", "max_share"))
	if u.Health != nil {
		k.health(u.Health, at(path, "health"))
		if u.Health.Port > 0 && !u.overTCP() {
			k.wrong("a unix socket has no port: want none", at(path, "health", "port")...)
		}
	}
}

// source complains about addresses that nobody connects from.
func (k *checker) source(u *Upstream, path []string) {
	ip, where := u.SourceAddress.Addr, at(path, "source_address")
	switch {
	case !ip.IsValid():
	case ip.IsUnspecified():
		k.wrong(fmt.Sprintf("%s is no address of a machine: want one of this machine, or none, for the kernel to choose", ip), where...)
	default:
		if err := oneMachine(ip, ""); err != nil {
			k.wrong(fmt.Sprintf("%s: %v", ip, err), where...)
		}
	}
}

func (k *checker) resolve(r *Resolve, path []string) {
	for i, s := range r.Servers {
		where := at(path, "servers", i)
		ap, err := netip.ParseAddrPort(s)
		if err != nil || ap.Port() == 0 {
			k.wrong(fmt.Sprintf("%q: want address:port of a name server", s), where...)
		} else if err := oneMachine(ap.Addr(), fmt.Sprint(ap.Port())); err != nil {
			k.wrong(fmt.Sprintf("%q: %v", s, err), where...)
		}
	}
}

// upstreamTLS checks what TLS with the servers of u is to be.
func (k *checker) upstreamTLS(u *Upstream, path []string) {
	t := u.TLS
	k.protocols(t.ALPN, at(path, "alpn"))
	if t.ServerName != "" && !validHost(t.ServerName) {
		k.wrong(fmt.Sprintf("%q is no name of a server: want one like www.example.org", t.ServerName), at(path, "server_name")...)
	}
	if t.CA != "" && t.NoVerify {
		k.wrong("any certificate is taken: want no ca, or no no_verify", at(path, "ca")...)
	}
	if t.Key != "" && t.Certificate == "" {
		k.wrong("the key is of no certificate: want certificate too", at(path, "key")...)
	}
	unix := slices.ContainsFunc(u.Servers, func(s Target) bool { return strings.HasPrefix(s.Address, "unix:") })
	if unix && t.ServerName == "" && !t.NoVerify {
		k.wrong("a unix socket has no name for its certificate: want server_name", path...)
	}
}

func (k *checker) health(h *Health, path []string) {
	if h.ServerName != "" {
		switch _, err := ParseAddr(h.ServerName); {
		case !h.TLS && h.HTTP == nil:
			k.wrong("nobody is told the name: want tls or http", at(path, "server_name")...)
		case !validHost(h.ServerName) && (h.TLS || err != nil): // a Host may have a port
			k.wrong(fmt.Sprintf("%q is no name of a server: want one like www.example.org", h.ServerName), at(path, "server_name")...)
		}
	}
	if _, err := unescape(h.Send); err != nil {
		k.wrong(err.Error(), at(path, "send")...)
	}
	if expect, err := unescape(h.Expect); err != nil {
		k.wrong(err.Error(), at(path, "expect")...)
	} else if len(expect) > maxAnswer {
		k.wrong(fmt.Sprintf("%d bytes are more than a check reads: want %d at most", len(expect), maxAnswer), at(path, "expect")...)
	}
	if h.Port < 0 || h.Port > 65535 {
		k.wrong(fmt.Sprintf("port %d: want 1 to 65535", h.Port), at(path, "port")...)
	}
	k.percent(h.Jitter, at(path, "jitter"))
	if h.HTTP == nil {
		return
	}
	if h.Send != "" {
		k.wrong("http sends a request of its own: want send or http", at(path, "send")...)
	}
	for i, s := range h.HTTP.Status {
		if _, err := parseStatus(s); err != nil {
			k.wrong(err.Error(), at(path, "http", "status", i)...)
		}
	}
	if h.HTTP.Path != "" && !strings.HasPrefix(h.HTTP.Path, "/") || strings.ContainsFunc(h.HTTP.Path, blank) {
		k.wrong(fmt.Sprintf("path %q: want one that begins with /, without blanks, escaped", h.HTTP.Path), at(path, "http", "path")...)
	}
	if strings.ContainsFunc(h.HTTP.Method, blank) {
		k.wrong(fmt.Sprintf("method %q: want a word", h.HTTP.Method), at(path, "http", "method")...)
	}
}

// blank is what can't be in a word of HTTP: blanks, and what is not ASCII.
func blank(r rune) bool { return r <= ' ' || r > '~' }
