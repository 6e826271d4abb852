package engine

import (
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine/flow"
	"github.com/spliced-io/spliced/internal/sys"
)

// An endpoint is one of a session's two sockets, as its event loop sees it.
// Only the loop touches it once the session runs.
type endpoint struct {
	session *Session
	fd      int
	slot    int32 // index in the loop's table
	cookie  uint64

	// readable and writable are what the last edges said, less what EAGAIN
	// took back: edge-triggered, so they are only ever cleared by EAGAIN or by
	// a short read that is exact.
	readable, writable bool
	exact              bool // a short read means that the receive queue was empty
	deaf               bool // not registered for EPOLLOUT, see loop.deafen
	hangup             bool // EPOLLRDHUP, HUP or ERR was seen: read on to the end
	resettable         bool // a TCP socket: it can send a RST
	aborting           bool // a RST is to be sent once the peer has all bytes
	parting            bool // it is to be closed once the peer has all bytes
	hup, failed        bool // EPOLLHUP, EPOLLERR were seen, and not looked into yet

	fullAt time.Duration // loop clock: when a send buffer that is redirected to was last full; 0 is never

	continued        bool  // of a session before this one
	blocking, inline bool  // what to restore when the session gives the socket back
	err              error // the error that broke the connection; sticky
}

// prepare checks that the socket can be joined and readies it for the loop.
func (e *endpoint) prepare() error {
	typ, err := sys.SocketType(e.fd)
	if err != nil {
		return err // ENOTSOCK
	}
	if typ != syscall.SOCK_STREAM {
		return syscall.ESOCKTNOSUPPORT
	}
	family, err := sys.PeerFamily(e.fd)
	if err == syscall.ENOTCONN {
		// Never connected; or connected, and reset since: then what it has
		// received is delivered, and the reset after it. One that is continued may
		// have sent its FIN and had the peer's.
		if e.err == nil {
			e.err = sys.SocketError(e.fd)
		}
		if e.err == nil && !e.continued || e.err != nil && !broken(e.err) {
			return err
		}
		family, err = sys.LocalFamily(e.fd)
	}
	if err != nil {
		return err
	}
	if e.cookie, err = sys.Cookie(e.fd); err != nil {
		return err
	}
	if family != syscall.AF_UNIX {
		protocol, err := sys.SocketProtocol(e.fd)
		if err != nil {
			return err
		}
		e.resettable = true
		// A read of a unix or MPTCP socket can stop short at a boundary of its
		// own with more behind it.
		e.exact = protocol == syscall.IPPROTO_TCP
	}
	nonblock, err := sys.SetNonblock(e.fd, true)
	if err != nil {
		return err
	}
	e.blocking = !nonblock
	// Urgent bytes keep their place in the stream. Where the option does not
	// exist (older unix sockets) there are none.
	e.inline, err = sys.SetOOBInline(e.fd, true)
	if err != nil {
		e.inline = true
	}
	return nil
}

// restore undoes what prepare changed. The peer may have gone: errors don't
// matter then.
func (e *endpoint) restore() {
	if e.blocking {
		_, _ = sys.SetNonblock(e.fd, false)
	}
	if !e.inline {
		_, _ = sys.SetOOBInline(e.fd, false)
	}
}

// event notes what an epoll event says.
func (e *endpoint) event(events uint32) {
	if events&(sys.EpollIn|sys.EpollRDHup|sys.EpollHup|sys.EpollErr|sys.EpollPri) != 0 {
		e.readable = true
	}
	if events&(sys.EpollOut|sys.EpollHup|sys.EpollErr) != 0 {
		e.writable = true
	}
	if events&(sys.EpollRDHup|sys.EpollHup|sys.EpollErr) != 0 {
		e.hangup = true
	}
	e.hup = e.hup || events&sys.EpollHup != 0
	e.failed = e.failed || events&sys.EpollErr != 0
	if events&sys.EpollPri != 0 {
		e.exact = false // reads stop short at the urgent mark
	}
}

// gone looks into an EPOLLHUP or EPOLLERR and returns the error that broke the
// connection. This side must not have sent its FIN: after both FINs a hang-up
// is no failure.
func (e *endpoint) gone() error {
	if !e.hup && !e.failed {
		return nil
	}
	hup := e.hup
	e.hup, e.failed = false, false
	err := sys.SocketError(e.fd)
	if err == nil && hup {
		err = syscall.EPIPE
	}
	return err
}

// dead returns why nothing can be sent any more, of a socket from which something is still to be
// sent. Its error may be somebody else's already: the kernel's worker takes it too.
func (e *endpoint) dead() error {
	if e.err != nil {
		return e.err
	}
	if !e.resettable {
		return nil
	}
	if _, err := sys.PeerFamily(e.fd); err != syscall.ENOTCONN {
		return nil
	}
	if err := sys.SocketError(e.fd); err != nil {
		return err
	}
	return syscall.EPIPE
}

// part prepares the end of an owned socket that may have unread bytes: closing
// it would then send a RST, which throws away what its peer has not got yet.
func (e *endpoint) part() {
	_ = sys.Shutdown(e.fd, syscall.SHUT_WR)
	if e.resettable {
		e.parting = true
		return
	}
	// A unix socket has no send queue of its own.
	_ = sys.Shutdown(e.fd, syscall.SHUT_RD)
	e.discard()
}

// discard reads what is left of a unix or MPTCP connection: its peer's next
// read fails if unread bytes are closed away. A TCP peer has seen the FIN, and
// a RST after that is no failure to it.
func (e *endpoint) discard() {
	if e.exact {
		return
	}
	var b [4096]byte
	for range 256 { // who sends more than that has not listened
		if n, err := sys.Recv(e.fd, b[:]); n == 0 || err != nil {
			return
		}
	}
}

// fail notes that the connection is broken. The first error counts: later
// ones (EPIPE, a clean end) are its echo.
func (e *endpoint) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// unacked counts the bytes, a FIN included, that the peer has not acknowledged
// and still may.
func (e *endpoint) unacked() int {
	if !e.resettable {
		return 0
	}
	n, err := sys.Unacked(e.fd)
	if err != nil || n == 0 {
		return 0
	}
	// After a RST the kernel goes on counting what nobody will acknowledge.
	if _, err := sys.PeerFamily(e.fd); err == syscall.ENOTCONN {
		return 0
	}
	return n
}

// reset sends a RST, if the protocol has one, and drops what is queued.
func (e *endpoint) reset() {
	e.aborting = false
	if e.err != nil {
		return // it is gone already
	}
	e.err = syscall.ECONNABORTED
	if e.resettable {
		_ = sys.Disconnect(e.fd)
		return
	}
	_ = sys.Shutdown(e.fd, syscall.SHUT_RDWR)
}

// broken says whether err ends a session for its peers' sake: flow.PeerGone.
func broken(err error) bool {
	errno, ok := err.(syscall.Errno)
	return ok && flow.PeerGone(errno)
}
