package splice

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine"
)

// An Error says what was being done, with which connection, and what went
// wrong. It wraps the errno: errors.Is(err, syscall.ENOTCONN) works.
type Error struct {
	Op   string // "relay" or "copy"
	Side string // "a" or "b", "source" or "target"; empty when it concerns both
	Err  error
}

func (e *Error) Error() string {
	if e.Side == "" {
		return "splice: " + e.Op + ": " + e.Err.Error()
	}
	return "splice: " + e.Op + ": " + e.Side + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Timeout says whether a time limit ended the session.
func (e *Error) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}

// The causes of an end that have no errno of their own. The timeouts match
// syscall.ETIMEDOUT too.
var (
	ErrStopped          = engine.ErrStopped
	ErrIdleTimeout      = error(engine.ErrIdle)
	ErrHalfCloseTimeout = error(engine.ErrHalfClose)
	ErrLifetime         = error(engine.ErrLifetime)
	// ErrClientLeft is given to [Handler].Failed only.
	ErrClientLeft = engine.ErrClientLeft
	// ErrRaced is given to [Handler] only: of an address that was dialled beside another
	// one, which has answered first.
	ErrRaced = engine.ErrRaced
)

// ErrEngine: the engine named can't run here. The error that wraps it says why.
var ErrEngine = errors.New("engine not available")

// closedError turns the answer of a closed connection's RawConn into EBADF,
// and stays net.ErrClosed.
func closedError(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("%w (%w)", net.ErrClosed, syscall.EBADF)
	}
	return err
}
