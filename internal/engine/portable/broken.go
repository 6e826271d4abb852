package portable

import (
	"errors"
	"io"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine/flow"
)

// isBroken says whether err means that the peer, or the way to it, is gone,
// rather than that this machine has a problem.
func isBroken(err error) bool {
	// io.ErrUnexpectedEOF: TLS cut inside a record. (Cut between two, without a
	// close_notify, crypto/tls calls it EOF.) io.ErrClosedPipe: net.Pipe and
	// io.Pipe, which know no RST.
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) {
		return true
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	return flow.PeerGone(errno) || isBrokenHere(errno)
}
