package engine

import "time"

// SocketOptions are those of a TCP socket. A zero field is the default.
type SocketOptions struct {
	KeepIdle     time.Duration // whole seconds without a sign of life before the first probe
	KeepInterval time.Duration // whole seconds between two probes
	KeepCount    int           // probes without an answer, after which the connection is broken
	// UserTimeout, in whole milliseconds, is how long what was sent may stay
	// unacknowledged before the connection is broken (TCP_USER_TIMEOUT, tcp(7)).
	// Default: the system's, a quarter of an hour or so.
	UserTimeout time.Duration
	// UnsentMost is from how many bytes on that were not sent yet the socket takes no
	// more (TCP_NOTSENT_LOWAT). Default: the system's.
	UnsentMost int
}
