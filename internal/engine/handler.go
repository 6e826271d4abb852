package engine

import (
	"net/netip"

	"github.com/spliced-io/spliced/internal/sys"
)

// A Handler follows one accepted connection. Its methods are called by the
// session's event loop and must not block.
type Handler interface {
	// Connected: the session is joined, with that target, which sees local as
	// its client; invalid for a unix socket.
	Connected(target int, local netip.AddrPort)
	// Failed: no target could be reached; or the client has left meanwhile
	// ([ErrClientLeft]), or its lifetime is over ([ErrLifetime]): then err joins
	// that with the errors of the targets that were tried before. The client was
	// sent a RST.
	Failed(err error)
	// Sockets: the joined session is spliced packet by packet and has let its two
	// sockets go (held is false), or is about to have some again. Not told of are
	// sessions with a limit of bytes, which will want some again, and nothing is told of the
	// end.
	Sockets(held bool)
	// Ended: it was joined, and has ended.
	Ended(Result)
}

// A Target is where a session may be connected to.
type Target struct {
	Name    string // for errors
	Address sys.Address
}
