package splice

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/sys"
)

// reactor is the one of this process: the CPUs and the user's allowance of
// pipes, which it shares out, are the process's too. Without sessions it holds
// nothing.
var reactor engine.Reactor

func start(a, b io.ReadWriteCloser, o *options) (carrier, error) {
	sa, okA := a.(syscall.Conn)
	sb, okB := b.(syscall.Conn)
	if !okA || !okB {
		if o.engine == EngineSplice || o.engine == EngineSockmap || o.engine == EngineWire {
			return nil, fmt.Errorf("%s: %w: a connection without a descriptor can only be copied", o.engine, ErrEngine)
		}
		if o.past != nil {
			return nil, fmt.Errorf("continue a connection without a descriptor: %w", errors.ErrUnsupported)
		}
		return startPortable(a, b, o, whyPortable(a, b, engine.WhyNoDescriptor))
	}
	if err := o.openEngine(); err != nil {
		return nil, &Error{Op: "relay", Err: err}
	}
	fa, err := dup(sa)
	if err != nil {
		return nil, &Error{Op: "relay", Side: "a", Err: err}
	}
	fb, err := dup(sb)
	if err != nil {
		_ = sys.Close(fa)
		return nil, &Error{Op: "relay", Side: "b", Err: err}
	}
	s, err := reactor.Start(engine.Spec{
		Kind: o.engine, A: fa, B: fb, Limits: o.limits(),
		FromA: o.fromA, FromB: o.fromB, Own: o.own, OnEnd: o.onEnd, OnSockets: o.onSockets, Note: o.note, Wire: o.wire, Past: o.past,
	})
	if err != nil {
		_ = sys.Close(fa)
		_ = sys.Close(fb)
		return nil, err
	}
	if o.own {
		_ = a.Close()
		_ = b.Close()
	}
	return loopSession{s}, nil
}

// dup returns a descriptor of the session's own: the caller's may be closed,
// and its number used for something else, at any time.
func dup(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, closedError(err)
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(n uintptr) { fd, dupErr = sys.Dup(int(n)) }); err != nil {
		return -1, closedError(err)
	}
	return fd, dupErr
}

// A loopSession is one of the event loops'.
type loopSession struct{ *engine.Session }

func (s loopSession) take() (a, b net.Conn, err error) {
	fa, fb, ok := s.Take()
	if !ok {
		return nil, nil, syscall.EBADF
	}
	a, errA := conn(fa)
	b, errB := conn(fb)
	if err := errors.Join(errA, errB); err != nil {
		if a != nil {
			_ = a.Close()
		}
		if b != nil {
			_ = b.Close()
		}
		return nil, nil, err
	}
	return a, b, nil
}

func (s loopSession) discard() { s.Discard() }

// conn makes a net.Conn of a descriptor, which it closes.
func conn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	return net.FileConn(f)
}
