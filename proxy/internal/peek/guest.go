package peek

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Max is how many bytes can be looked at, at most.
const Max = 32 << 10

// A Guest is a connection that is waited for.
type Guest struct {
	// Conn stays the caller's. It must not be read, nor closed, while it is
	// waited for.
	Conn net.Conn
	// Held, if it is not nil, takes the place of Conn, on Linux.
	Held Held
	// Deadline is when the waiting ends. Zero is never.
	Deadline time.Time
	// Hurried is when it ends if the room is told to hurry ([Room.Hurry]) and the
	// guest is the next to be late. Zero is not before the deadline.
	Hurried time.Time
	// Of is whose guest it is, for [Room.Hurry]: anything that can be compared.
	Of any
	// Look is shown all that has come. It is called again for more, and must
	// neither keep b nor block: it holds up the others who wait.
	Look func(b []byte) Action
	// Done is told the outcome, once. It must not block either.
	Done func(Outcome)
}

// Held is a connection that an event loop listens to for its guest: that
// of [splice.Held].
type Held interface {
	syscall.Conn
	Listen(said func(gone bool)) error
}

// An Action is what is to happen after a look. The zero value ends the waiting.
type Action struct {
	// Take, of the bytes that were seen, are taken off the connection: a header
	// that is not for the one behind.
	Take int
	// Need is how many bytes, those taken not counted, it takes for the next
	// look, at most [Max]. 0 is that there has been enough.
	Need int
}

// An Outcome is how the waiting ended.
type Outcome struct {
	// Bytes are those that the connection has to give, as far as they were there
	// at the end. They must not be kept.
	Bytes []byte
	// Read are those of them that are no longer in the connection and belong
	// before what is. It is empty if the connection gives its descriptor, on
	// Linux; else the caller's to keep.
	Read []byte
	// Err is nil if the last look had enough. Else it is
	// [os.ErrDeadlineExceeded]; [io.ErrUnexpectedEOF]: the client has ended its
	// side before; [net.ErrClosed]: the room was closed; or what broke the
	// connection.
	Err error
}

var errAction = errors.New("peek: a look took bytes that were not there, or asked for those that were, or for too many")

// check says whether a, given after a look at seen bytes, can be done.
func (a Action) check(seen int) error {
	if a.Take < 0 || a.Take > seen || a.Need < 0 || a.Need > Max || a.Need > 0 && a.Take == 0 && a.Need <= seen {
		return errAction
	}
	return nil
}
