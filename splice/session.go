package splice

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
)

// A Session is a joined pair of connections.
type Session struct {
	carrier
	own bool
}

// A carrier is what runs a session: an event loop, or goroutines.
type carrier interface {
	Stats() Stats
	Stop(context.Context) Result
	Done() <-chan struct{}
	Result() Result
	take() (a, b net.Conn, err error)
	discard() // resets and closes what take would give
}

// Relay joins a and b and returns when both directions have ended. It may be
// called for any number of pairs at once.
//
// a and b are connected stream sockets (TCP, MPTCP, unix) that give their
// descriptor by a SyscallConn method, as *net.TCPConn, *net.UnixConn and
// *os.File do; the descriptor must carry what their Read and Write do, so
// bytes that a wrapper has buffered belong into [Prefetched]. Any other value,
// such as a *tls.Conn, is relayed with its Read and Write, and so is a pair of
// which only one has a descriptor. Of these it is checked only that a and b are
// not equal: the same connection in two wrappers, one that is joined already,
// and a file that is no socket are taken as they are, and their bytes go to
// whoever reads first.
//
// The error is nil if both directions ended with a FIN or by [MaxBytes]. When
// ctx ends first, Relay stops the session as [Session.Abort] does and returns
// the cause of ctx. Else it is an [*Error] that wraps the
// errno: ENOTSOCK, ESOCKTNOSUPPORT (not a stream), ENOTCONN, EBADF (closed),
// EBUSY (already joined; these five of a pair of descriptors, on Linux), EINVAL
// (the same twice, a negative limit) before a byte was moved; later what broke the connection. The Result is
// complete in any case.
func Relay(ctx context.Context, a, b io.ReadWriteCloser, opts ...Option) (Result, error) {
	s, err := Start(a, b, opts...)
	if err != nil {
		return Result{}, err
	}
	select {
	case <-s.Done():
		return s.Wait()
	case <-ctx.Done():
	}
	r := s.Abort()
	if r.AToB.Reason == Stopped || r.BToA.Reason == Stopped {
		return r, &Error{Op: "relay", Err: context.Cause(ctx)}
	}
	return s.Wait()
}

// Start joins a and b like [Relay] and returns at once. The session runs until
// both directions have ended or it is stopped.
func Start(a, b io.ReadWriteCloser, opts ...Option) (*Session, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if err := o.check(); err != nil {
		return nil, &Error{Op: "relay", Err: err}
	}
	if a == nil || b == nil {
		return nil, &Error{Op: "relay", Err: syscall.EINVAL}
	}
	c, err := start(a, b, &o)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			return nil, err
		}
		return nil, &Error{Op: "relay", Err: err}
	}
	return &Session{carrier: c, own: o.own}, nil
}

// Stats returns the bytes of each direction, exact at the moment of the call,
// and the engine at work.
func (s *Session) Stats() Stats { return s.carrier.Stats() }

// Stop ends the session: nothing more is read from either connection, and what
// is on its way is delivered. If ctx ends before the receivers have taken it,
// it is returned in [End.Undelivered]. Both connections are usable afterwards.
// The error is that of a connection that broke, if one did.
func (s *Session) Stop(ctx context.Context) (Result, error) {
	s.carrier.Stop(ctx)
	return s.Wait()
}

// Abort ends the session without waiting for anybody: what is on its way is
// returned in [End.Undelivered]. Connections that the session owns (see [Own])
// are closed with a RST, so that both peers learn that they were cut; others
// are usable afterwards.
func (s *Session) Abort() Result {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if l, ok := s.carrier.(interface{ Abort() }); ok && s.own {
		l.Abort()
		<-s.Done()
		return s.Result()
	}
	r := s.carrier.Stop(ctx)
	if s.own {
		s.discard()
	}
	return r
}

// Wait waits for the end of the session. Its error is as described for
// [Relay]; a stopped session is none.
func (s *Session) Wait() (Result, error) {
	<-s.Done()
	r := s.Result()
	if err := r.Err(); err != nil {
		return r, &Error{Op: "relay", Err: err}
	}
	return r, nil
}

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.carrier.Done() }

// Conns gives back the connections of a session that was started with [Own]
// and ended by [Session.Stop]. It can do so once; EBADF says that the session
// has closed them, as it does when it ends before the Stop has come.
func (s *Session) Conns() (a, b net.Conn, err error) {
	if !s.own {
		return nil, nil, &Error{Op: "conns", Err: syscall.EINVAL}
	}
	if a, b, err = s.take(); err != nil {
		return nil, nil, &Error{Op: "conns", Err: err}
	}
	return a, b, nil
}
