package splice

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine/portable"
)

// A portableSession adds ownership to the goroutine driver.
type portableSession struct {
	*portable.Session
	a, b  io.ReadWriteCloser
	taken atomic.Bool
}

func startPortable(a, b io.ReadWriteCloser, o *options, why Why) (carrier, error) {
	onEnd := o.onEnd
	if o.own {
		onEnd = func(r Result) {
			if !stopped(r) {
				_ = a.Close()
				_ = b.Close()
			}
			if o.onEnd != nil {
				o.onEnd(r)
			}
		}
	}
	return &portableSession{a: a, b: b, Session: portable.Start(portable.Spec{
		A: a, B: b, Limits: o.limits(), FromA: o.fromA, FromB: o.fromB, OnEnd: onEnd, Why: why,
	})}, nil
}

// take gives back what the session was started with.
func (s *portableSession) take() (a, b net.Conn, err error) {
	select {
	case <-s.Done():
	default:
		return nil, nil, syscall.EBUSY
	}
	a, okA := s.a.(net.Conn)
	b, okB := s.b.(net.Conn)
	switch {
	case !okA || !okB:
		return nil, nil, errors.ErrUnsupported
	case !stopped(s.Result()) || s.taken.Swap(true):
		return nil, nil, syscall.EBADF
	}
	return a, b, nil
}

func stopped(r Result) bool { return r.AToB.Reason == Stopped || r.BToA.Reason == Stopped }

// Result is complete once Done is closed.
func (s *portableSession) Result() Result { return s.Session.Wait() }
