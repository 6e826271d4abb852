package proxy

import (
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine/flow"
	"github.com/spliced-io/spliced/proxy/internal/proxyproto"
	"github.com/spliced-io/spliced/splice"
)

// FailReason says in a word why a client was not joined, or a server not
// connected to: a code for logs and counters.
type FailReason string

// Why a client was not joined. Those of [ConnectRefused] and below are also why a
// server was not connected to.
const (
	NoRoute          FailReason = "no-route"
	RejectedByRoute  FailReason = "rejected"
	ClientDenied     FailReason = "client-denied"
	ClientTooMany    FailReason = "client-connections"
	ClientTooOften   FailReason = "client-rate"
	HandshakeTimeout FailReason = "handshake-timeout"
	HandshakeFailed  FailReason = "handshake-failed"
	BadHeader        FailReason = "proxy-header"
	ClientLeft       FailReason = "client-left"
	LifetimeOver     FailReason = "lifetime"
	NoServerUp       FailReason = "no-server-up"
	QueueFull        FailReason = "queue-full"
	QueueTimeout     FailReason = "queue-timeout"
	NoDestination    FailReason = "no-destination"
	ClientSource     FailReason = "client-source"
	ServerStopped    FailReason = "stopped"

	ConnectRefused     FailReason = "connect-refused"
	ConnectTimeout     FailReason = "connect-timeout"
	ConnectUnreachable FailReason = "connect-unreachable"
	ConnectReset       FailReason = "connect-reset"
	ConnectTLS         FailReason = "connect-tls"
	ConnectRaced       FailReason = "connect-raced" // another address of the server has answered first
	NoDescriptors      FailReason = "no-descriptors"
	OtherFailure       FailReason = "other"
)

// failReasons are told apart in this order: what is said last of several tries
// must not hide what the client itself did.
var failReasons = []struct {
	err    error
	reason FailReason
}{
	{errNoRoute, NoRoute},
	{errRejected, RejectedByRoute},
	{errTooMany, ClientTooMany},
	{errDenied, ClientDenied},
	{errTooOften, ClientTooOften},
	{errHandshake, HandshakeTimeout},
	{errEvicted, HandshakeTimeout},
	{splice.ErrClientLeft, ClientLeft},
	{errLeftBefore, ClientLeft},
	{proxyproto.ErrWrong, BadHeader},
	{splice.ErrLifetime, LifetimeOver},
	{errClientTLS, HandshakeFailed},
	{errNoServer, NoServerUp},
	{errQueueFull, QueueFull},
	{errQueueLate, QueueTimeout},
	{errNoDestination, NoDestination},
	{errClientSource, ClientSource},
	{ErrServerClosed, ServerStopped},
	{splice.ErrStopped, ServerStopped},
	{splice.ErrRaced, ConnectRaced},
	{errServerTLS, ConnectTLS},
	{syscall.ECONNREFUSED, ConnectRefused},
	{syscall.ENOENT, ConnectRefused}, // a unix socket that is not there
	{syscall.ETIMEDOUT, ConnectTimeout},
	{syscall.EHOSTUNREACH, ConnectUnreachable},
	{syscall.ENETUNREACH, ConnectUnreachable},
	{syscall.EADDRNOTAVAIL, NoDescriptors}, // no local port is left
	{syscall.ECONNRESET, ConnectReset},
	{syscall.EPIPE, ConnectReset},    // a PROXY header came too late
	{syscall.ENOTCONN, ConnectReset}, // a session did
}

// clientGone says of an error of the client's connection whether it means that the client
// has left.
func clientGone(err error) bool {
	var errno syscall.Errno
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &errno) && flow.PeerGone(errno)
}

// failReason finds the code of an error.
func failReason(err error) FailReason {
	if shortage(err) {
		return NoDescriptors
	}
	for _, r := range failReasons {
		if errors.Is(err, r.err) {
			return r.reason
		}
	}
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return ConnectTimeout
	}
	return OtherFailure
}
