package proxy

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// ErrConnLimit is the reason for holding back new connections at
// [Server.MaxConns].
var ErrConnLimit = errors.New("connection limit reached")

// Hooks tell what happens. Each may be nil. They are called from goroutines of
// the server, several at a time, and no lock is held; a hook that blocks holds
// back its own connection and, in the end, new ones, never bytes on the way.
type Hooks struct {
	// Ended reports a connection that was joined and has ended.
	Ended func(Ended)
	// Failed reports a client that could not be joined to any target. It was
	// sent a RST.
	Failed func(Failed)
	// Held reports that new connections have to wait in the kernel's queue.
	Held func(Held)
}

// Ended is a connection that has ended.
type Ended struct {
	Conn
	Result splice.Result
}

// Failed is a client that could not be joined.
type Failed struct {
	Client string
	Err    error         // of each target that was tried, by [errors.Join]
	After  time.Duration // since the client was accepted
}

// Held says that a listener does not accept for the moment.
type Held struct {
	Addr net.Addr
	Err  error // [ErrConnLimit], or what accept(2) or a dial answered
}

// Conn is a joined connection.
type Conn struct {
	ID      uint64 // counts from 1
	Client  string // address, or "unix"
	Target  string // address really dialled, or unix:/path
	Local   netip.AddrPort
	Started time.Time
	Stats   splice.Stats
}
