package engine

import (
	"net/netip"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// A Handler follows one accepted connection. Its methods are called by the
// session's event loop and must not block.
type Handler interface {
	// Connected: the session is joined, with that target, which sees local as
	// its client; invalid for a unix socket. tried has, by their numbers, why others
	// were not: nil for those that were not tried, [ErrRaced] for one that had not
	// answered yet. It is nil if the first one has answered by itself.
	Connected(target int, local netip.AddrPort, tried []error)
	// Failed: no target could be reached; or the client has left meanwhile
	// ([ErrClientLeft]), or its lifetime is over ([ErrLifetime]): then err joins
	// that with the errors of the targets that were tried before. tried has those by
	// their numbers, nil for who was not, or had not answered yet. The client was
	// sent a RST.
	Failed(err error, tried []error)
	// Sockets: the joined session is spliced packet by packet and has let its two
	// sockets go (held is false), or is about to have some again. Not told of are
	// sessions with a limit of bytes, which will want some again, and nothing is told of the
	// end.
	Sockets(held bool)
	// Note is asked when the session is handed over to the engine wire under the name of an
	// instance: what it says goes with the flow, and whoever adopts that has it by
	// [Session.Note]. A text of more than [NoteSize] bytes is none.
	Note(Flow) string
	// Ended: it was joined, and has ended.
	Ended(Result)
}

// A Target is where a session may be connected to.
type Target struct {
	Name    string // for errors
	Address sys.Address
	// Beside: it is another address of the same server as the target before it. It is
	// tried when that one fails, and beside it when that has not answered within
	// [RaceDelay], or half of the plan's Timeout; who answers first has the session, and all of them together have
	// the plan's Timeout (RFC 8305, section 5).
	Beside bool
}

// RaceDelay is how long an address of a server has before the next one is tried beside
// it: the Connection Attempt Delay that RFC 8305 recommends.
const RaceDelay = 250 * time.Millisecond
