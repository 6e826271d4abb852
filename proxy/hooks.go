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
	// Accepted reports a client, before anything else is known of it.
	Accepted func(Accepted)
	// Joined reports that a client was joined with a server.
	Joined func(Conn)
	// Ended reports a connection that was joined and has ended.
	Ended func(Ended)
	// Failed reports a client that could not be joined to any target. It was
	// sent a RST.
	Failed func(Failed)
	// Held reports that new connections have to wait in the kernel's queue.
	Held func(Held)
	// Changed reports that a server went up or down or was steered, or that a name
	// resolves to something else.
	Changed func(Change)
	// Inherited reports that the connections of another process are here.
	Inherited func(Inherited)
}

// Accepted is a client that was accepted.
type Accepted struct {
	ID       uint64 // as [Conn.ID]
	Client   string
	Listener string
}

// Ended is a connection that has ended.
type Ended struct {
	Conn
	Result splice.Result
}

// Failed is a client that could not be joined.
type Failed struct {
	ID       uint64 // as [Conn.ID]
	Client   string
	Listener string
	Upstream string        // "" if it came to none
	Reason   FailReason    // what Err comes to
	Err      error         // of each server that was tried, by [errors.Join]
	After    time.Duration // since the client was accepted
}

// A Change is something that happened to an upstream.
type Change struct {
	Listener string // of FilesRead and FilesRefused; else "", as it is where an upstream is meant
	Upstream string
	Server   string // as [ServerStatus.Name]; for Resolved and Unresolved the name
	What     ChangeKind
	Err      error // the reason of Down, Ejected, Unresolved and FilesRefused
	Detail   string
}

// ChangeKind says what happened.
type ChangeKind string

// The changes.
const (
	Up           ChangeKind = "up"            // its checks pass
	Down         ChangeKind = "down"          // its checks fail
	Ejected      ChangeKind = "ejected"       // clients found it broken
	Readmitted   ChangeKind = "readmitted"    // clients may try it again
	Resolved     ChangeKind = "resolved"      // the name has other addresses: see Detail
	FilesRead    ChangeKind = "files-read"    // certificates or keys have changed
	FilesRefused ChangeKind = "files-refused" // they have, and can't be used: see Err
	Unresolved   ChangeKind = "unresolved"    // the name could not be resolved
	Draining     ChangeKind = "draining"      // [Server.SetDraining] keeps new connections from it
	Undrained    ChangeKind = "undrained"     // it lets them come again
	Reweighted   ChangeKind = "reweighted"    // [Server.SetWeight], or the end of what it said: see Detail
)

// Why the server itself ended a connection: [Conn.Cut].
const (
	CutDown    = "server-down"
	CutRemoved = "server-removed"
	CutDrained = "drained"
	CutAsked   = "asked"
)

// Held says that a listener does not accept for the moment.
type Held struct {
	Addr net.Addr
	Err  error // [ErrConnLimit], or what accept(2) or a dial answered
}

// Conn is a joined connection.
type Conn struct {
	ID       uint64 // counts from 1, and stays the same when another process takes the connection over
	Listener string
	Route    string
	Upstream string
	SNI      string // the name that a TLS client sent; "" if nobody looked
	Client   string // address, or "unix"
	Server   string // as [ServerStatus.Name]
	Target   string // address really dialled, or unix:/path
	Local    netip.AddrPort
	Started  time.Time
	// Connected is the time from accepting the client until its server had answered;
	// 0 if another process did that.
	Connected time.Duration
	Stats     splice.Stats
	Cut       string // why the server ended it; "" if it did not
}
