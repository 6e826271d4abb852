package proxy

import (
	"math"
	"net/netip"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// A Config says what a [Server] does. In its parts, a zero field stands for the
// default, which its tag names.
type Config struct {
	// Listeners are the places where clients connect, by name.
	Listeners map[string]Listener `yaml:"listeners"`
	// Upstreams are groups of servers that do the same, by name.
	Upstreams map[string]Upstream `yaml:"upstreams"`
	// MaxConnections is how many connections may be open at a time. Further
	// clients are not refused, they wait in the kernel's queue; one more for each
	// further processor and listener may be accepted. 0 is no limit but that of open
	// files, which holds in any case: connections that the engine wire carries have no
	// descriptors, unless they have a limit of bytes, and don't count there.
	MaxConnections int `yaml:"max_connections"`
	// Wire is when a hand-over to the engine wire is worth it.
	Wire Wire `yaml:"wire"`
	// Drain is how the end goes.
	Drain Drain `yaml:"drain"`
}

// Wire says when listeners of the engine auto hand a connection over to the engine wire: at
// whichever comes first. Before, it is cheaper to carry it than to hand it over: most
// connections end. A listener of the engine wire does not wait for either.
type Wire struct {
	// AfterBytes is once so many bytes were carried, in both directions together.
	AfterBytes Size `yaml:"after_bytes" default:"1MiB"`
	// AfterAge is once the connection is so old.
	AfterAge Duration `yaml:"after_age" default:"1s"`
}

// Drain says what becomes of connections when the server is to end.
type Drain struct {
	// Timeout is how long connections may take to end by themselves. What is left
	// is reset.
	Timeout Timeout `yaml:"timeout" default:"30s"`
	// Spread is the part of the timeout, at its end, over which connections are
	// closed one by one rather than all at once, so that their clients don't come
	// back all at once.
	Spread Percent `yaml:"spread" default:"50%"`
}

// A Listener accepts connections at one or several addresses and sends each the
// way of the first route that it matches.
type Listener struct {
	// Address is where to listen: host:port, :port for every address of this
	// machine, unix:/path, systemd for all sockets that the service manager passes,
	// systemd:NAME for those of that name.
	Address []string `yaml:"address,required"`
	// Upstream is where connections go that match no route.
	Upstream string `yaml:"upstream"`
	// Routes are tried in this order; the first that matches has the connection. A
	// connection without a route is reset.
	Routes []Route `yaml:"routes"`
	// Engine is what moves the bytes: auto, copy, splice, sockmap or wire. auto is copy
	// and splice, and hands connections that last over to wire where the process has the
	// privileges for that. A process whose listeners all say splice or copy gives those up.
	Engine splice.Engine `yaml:"engine"`
	// Limits bound each connection.
	Limits Limits `yaml:"limits"`
	// MaxConnections is how many connections of this listener may be open. Further
	// clients wait in the kernel's queue. 0: no limit but the server's.
	MaxConnections int `yaml:"max_connections"`
	// MaxConnectionsPerClient is how many connections one address may have open
	// here; further ones are reset. 0: any number. Clients of a unix socket are
	// not told apart, and not limited.
	MaxConnectionsPerClient int `yaml:"max_connections_per_client"`
	// AcceptRatePerClient is how many connections a second one address may open
	// here, and as many at once after a pause; further ones are reset. 0: any
	// number. An IPv6 client is a network of 64 bits, here and above.
	AcceptRatePerClient int `yaml:"accept_rate_per_client"`
	// Allow are the networks, or addresses, that clients may come from. Default: all. Of the
	// networks here and in deny that have an address, the smallest decides.
	Allow []netip.Prefix `yaml:"allow"`
	// Deny are networks that they may not come from; such connections are reset.
	Deny []netip.Prefix `yaml:"deny"`
	// ProxyFrom are the networks of proxies whose connections must begin with a
	// PROXY header, of version 1 or 2, within handshake_timeout: who it names as the
	// client counts from then on. From elsewhere no header is taken. With any,
	// clients of a unix socket are such proxies too.
	ProxyFrom []netip.Prefix `yaml:"proxy_from"`
	// TLS ends TLS sessions here. Default: they pass through.
	TLS *ListenerTLS `yaml:"tls"`
	// HandshakeTimeout bounds the time until the first bytes have told what the
	// routes want to know; when places run short a hundredth of it does.
	HandshakeTimeout Timeout `yaml:"handshake_timeout" default:"10s"`
	// Bandwidth bounds what all connections of this listener carry together.
	Bandwidth Bandwidth `yaml:"bandwidth"`
	// Socket has the options of the listening sockets.
	Socket SocketOptions `yaml:"socket"`
	// TCP has those of the connections with clients.
	TCP TCPOptions `yaml:"tcp"`
}

// SocketOptions are those of a listening socket.
type SocketOptions struct {
	// Backlog is how many connections may wait to be accepted. 0: as many as the
	// system allows (net.core.somaxconn).
	Backlog int `yaml:"backlog"`
	// MPTCP accepts Multipath TCP, which the engine wire can't carry.
	MPTCP bool `yaml:"mptcp"`
	// ReusePort lets several processes listen at the same address (SO_REUSEPORT).
	ReusePort bool `yaml:"reuse_port"`
	// Transparent takes what nftables' tproxy sends here: connections whose local
	// address is the one that the client has dialled, another machine's as a rule
	// (IP_TRANSPARENT). It needs CAP_NET_RAW.
	Transparent bool `yaml:"transparent"`
}

// TCPOptions are those of connections with one side: clients or servers.
type TCPOptions struct {
	// KeepaliveIdle is how long a peer may give no sign of life before it is asked for
	// one.
	KeepaliveIdle Duration `yaml:"keepalive_idle" default:"2m"`
	// KeepaliveInterval is the time between two such questions.
	KeepaliveInterval Duration `yaml:"keepalive_interval" default:"15s"`
	// KeepaliveCount is how many of them may stay without an answer. Then the
	// connection is broken.
	KeepaliveCount int `yaml:"keepalive_count" default:"4"`
	// UserTimeout is how long bytes may stay unacknowledged; then the connection is
	// broken (TCP_USER_TIMEOUT, which bounds keepalive too). Default: as the system has
	// it, a quarter of an hour or so.
	UserTimeout Timeout `yaml:"user_timeout" default:"never"`
	// NotSentLowat is from how many bytes on that wait to be sent a socket takes no more
	// (TCP_NOTSENT_LOWAT). Default: as the system has it.
	NotSentLowat Size `yaml:"notsent_lowat"`
}

// A Route sends connections to an upstream. All of its conditions must hold; one
// without conditions matches every connection.
type Route struct {
	// Name is for logs and counters. Default: its number, from 1.
	Name string `yaml:"name"`
	// SNI are names of the TLS client hello: exact, or *.example.org for any name
	// that ends so (not example.org itself). TLS is passed through.
	SNI []string `yaml:"sni"`
	// ALPN are application protocols of the TLS client hello, like h2.
	ALPN []string `yaml:"alpn"`
	// Source are the networks that the client may come from.
	Source []netip.Prefix `yaml:"source"`
	// Protocol is what the client's first bytes are: tls, ssh, http, postgresql (a
	// login without encryption), postgresql-tls (it asks for encryption first),
	// plain for anything else, silent for a client that has said nothing within
	// handshake_timeout: it waits for the server.
	Protocol []Protocol `yaml:"protocol"`
	// Upstream is where the connection goes.
	Upstream string `yaml:"upstream"`
	// Reject resets the connection instead.
	Reject bool `yaml:"reject"`
}

// Limits bound a connection.
type Limits struct {
	// Idle ends a connection in which no byte has moved, in either direction, for
	// so long.
	Idle Timeout `yaml:"idle" default:"1h"`
	// HalfClose takes the place of idle once one direction has ended.
	HalfClose Timeout `yaml:"half_close" default:"1m"`
	// Lifetime ends a connection after so long, busy or not, with a reset.
	Lifetime Timeout `yaml:"lifetime" default:"never"`
	// LifetimeJitter shortens or lengthens each lifetime by up to this part, by
	// chance, so that clients don't all come back at once.
	LifetimeJitter Percent `yaml:"lifetime_jitter" default:"10%"`
	// BytesToServer ends the direction to the server after exactly so many bytes.
	// 0: never.
	BytesToServer Size `yaml:"bytes_to_server"`
	// BytesToClient is the same for the direction to the client.
	BytesToClient Size `yaml:"bytes_to_client"`
	// Bandwidth bounds what each connection carries.
	Bandwidth Bandwidth `yaml:"bandwidth"`
}

// Bandwidth is so many bytes a second, with a tenth of a second's at once after a
// pause. Such connections are not handed over to the engine wire.
type Bandwidth struct {
	// ToServer bounds the direction to the server. 0: no limit.
	ToServer Size `yaml:"to_server"`
	// ToClient bounds the direction to the client. 0: no limit.
	ToClient Size `yaml:"to_client"`
}

// An Upstream is a group of servers that do the same.
type Upstream struct {
	// Servers are its members.
	Servers []Target `yaml:"servers,required"`
	// Balance chooses the server: round-robin, least-connections, random-two (the
	// less busy of two drawn by chance), first (the first one that is up, in the
	// order of the list), maglev (the same hash, the same server, as far as it can
	// be kept).
	Balance Balance `yaml:"balance" default:"round-robin"`
	// Hash is what maglev hashes: source (the client's address) or sni (the name of
	// the TLS client hello; the client's address where there is none).
	Hash HashKey `yaml:"hash" default:"source"`
	// ConnectTimeout bounds each attempt to connect to a server, by all its addresses.
	ConnectTimeout Duration `yaml:"connect_timeout" default:"5s"`
	// Attempts is how many servers are tried for a client.
	Attempts int `yaml:"attempts" default:"3"`
	// TLS speaks TLS with the servers. Default: what the client sends is passed on.
	TLS *UpstreamTLS `yaml:"tls"`
	// SendProxy begins each connection with a PROXY header that names the client:
	// v1 or v2 (with the server name, and what else is known). Default: none.
	SendProxy ProxyVersion `yaml:"send_proxy"`
	// SourceAddress is the local address to connect from; or client for the client's
	// own, which needs CAP_NET_RAW, and routes that lead the answers back here.
	// Default: the kernel chooses.
	SourceAddress Source `yaml:"source_address"`
	// MaxConnections is how many connections each server may have, but for those
	// that say otherwise. Clients that find every server full wait in the queue. 0:
	// any number.
	MaxConnections int `yaml:"max_connections"`
	// Queue is where clients wait when every server is full.
	Queue Queue `yaml:"queue"`
	// SlowStart is how long a server that has come up again takes to its full share,
	// beginning with a tenth.
	SlowStart Timeout `yaml:"slow_start" default:"never"`
	// Health asks each server from time to time whether it works. Default: nobody
	// asks.
	Health *Health `yaml:"health"`
	// Ejection takes servers out that clients found broken.
	Ejection Ejection `yaml:"ejection"`
	// PanicThreshold: when a smaller part of the servers than this is up, the checks
	// are not believed, and all of them are used.
	PanicThreshold Percent `yaml:"panic_threshold" default:"0%"`
	// OnDown is what becomes of the connections of a server that a check finds down:
	// keep, drain (drain_time to end by themselves) or close.
	OnDown SessionRule `yaml:"on_down" default:"keep"`
	// OnRemoved is the same for a server that leaves the configuration.
	OnRemoved SessionRule `yaml:"on_removed" default:"keep"`
	// DrainTime is how long drain waits before it closes.
	DrainTime Timeout `yaml:"drain_time" default:"30s"`
	// Resolve is how names become addresses.
	Resolve Resolve `yaml:"resolve"`
	// TCP has options of the connections with the servers.
	TCP TCPOptions `yaml:"tcp"`
}

// A Target is a server of an [Upstream].
type Target struct {
	// Address is host:port, unix:/path, or srv:NAME for the servers of an SRV record.
	// Each address of a name is a server of its own, but for those of IPv4 and IPv6,
	// which are two ways to one. original-destination, alone, is
	// where the client wanted to go before nftables sent it here by tproxy or
	// redirect, or by what the PROXY header of its proxy says.
	Address string `yaml:"address,required,short"`
	// Weight is the server's share, compared with the others'.
	Weight int `yaml:"weight" default:"1"`
	// Backup servers are used when none of the others is up.
	Backup bool `yaml:"backup"`
	// MaxConnections takes the place of the upstream's.
	MaxConnections int `yaml:"max_connections"`
}

// Targets makes a list of servers of their addresses.
func Targets(addresses ...string) []Target {
	t := make([]Target, len(addresses))
	for i, a := range addresses {
		t[i].Address = a
	}
	return t
}

// Queue is where clients wait for a server with room.
type Queue struct {
	// Limit is how many may wait; further ones are reset.
	Limit int `yaml:"limit" default:"1000"`
	// Timeout is how long one waits; then it is reset.
	Timeout Duration `yaml:"timeout" default:"5s"`
}

// Resolve is how names become addresses.
type Resolve struct {
	// Interval is the longest time between two questions for a name; a shorter TTL
	// of its records shortens it.
	Interval Duration `yaml:"interval" default:"30s"`
	// Timeout bounds one question.
	Timeout Duration `yaml:"timeout" default:"5s"`
	// Servers are the name servers to ask, host:port. Default: those of
	// /etc/resolv.conf, after /etc/hosts.
	Servers []string `yaml:"servers"`
}

// Health is an active check: without more than its defaults, whether a
// connection can be made. With tls, send, expect or http it goes further.
type Health struct {
	// Interval is the time from the start of one check to the next.
	Interval Duration `yaml:"interval" default:"2s"`
	// Timeout is how long a server may take to answer.
	Timeout Duration `yaml:"timeout" default:"2s"`
	// Jitter shortens or lengthens each interval by up to this part, by chance.
	Jitter Percent `yaml:"jitter" default:"10%"`
	// Rise is how many checks in a row a server that is down must pass to be up.
	Rise int `yaml:"rise" default:"2"`
	// Fall is how many checks in a row one that is up must fail to be down.
	Fall int `yaml:"fall" default:"3"`
	// Port takes the place of the server's.
	Port int `yaml:"port"`
	// TLS makes a TLS handshake first. The certificate is not verified.
	TLS bool `yaml:"tls"`
	// ServerName is the name sent by that handshake, and the Host of http.
	ServerName string `yaml:"server_name"`
	// Send is what to send first. \r, \n, \t, \\ and \xHH stand for bytes.
	Send string `yaml:"send"`
	// Expect is what the answer must contain, written like send.
	Expect string `yaml:"expect"`
	// HTTP asks for a page.
	HTTP *HTTPCheck `yaml:"http"`
}

// HTTPCheck is a request of HTTP/1.1.
type HTTPCheck struct {
	// Path is what to ask for.
	Path string `yaml:"path" default:"/"`
	// Method is how.
	Method string `yaml:"method" default:"GET"`
	// Status are the codes that mean up: 200, or a range 200-399.
	Status []string `yaml:"status" default:"200-399"`
}

// Ejection takes servers out of use, for a time, that clients found broken: they
// could not connect, or the server reset them before its first byte. A server is
// only taken out if others are left.
type Ejection struct {
	// Off lets clients try broken servers for ever.
	Off bool `yaml:"off"`
	// Failures is how many failures in a row it takes.
	Failures int `yaml:"failures" default:"5"`
	// EarlyReset: a reset by the server, before its first byte, within this time is
	// a failure too.
	EarlyReset Timeout `yaml:"early_reset" default:"1s"`
	// Time is how long a server is out: for the first time, then twice as long each
	// time, up to max_time.
	Time Duration `yaml:"time" default:"10s"`
	// MaxTime bounds the doubling.
	MaxTime Duration `yaml:"max_time" default:"5m"`
	// MaxShare is the part of the servers that may be out at a time; one may be in
	// any case, if there are others.
	MaxShare Percent `yaml:"max_share" default:"50%"`
}

// AllServers are as many [Upstream.Attempts] as there are servers.
const AllServers = math.MaxInt32

// DefaultConnectTimeout bounds the dial of one server.
const DefaultConnectTimeout = 5 * time.Second
