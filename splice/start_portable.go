package splice

import (
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"sync/atomic"
	"syscall"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/engine/portable"
)

// A portableSession adds ownership to the goroutine driver.
type portableSession struct {
	*portable.Session
	a, b  io.ReadWriteCloser
	taken atomic.Bool
}

func startPortable(a, b io.ReadWriteCloser, o *options, why Why) (carrier, error) {
	// Without descriptors nothing else can be known of them.
	if equal(a, b) {
		return nil, fmt.Errorf("a and b are the same: %w", syscall.EINVAL)
	}
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

// equal is a == b, but false where that would panic.
func equal(a, b io.ReadWriteCloser) bool {
	return reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// whyPortable says why a pair is copied with Read and Write: why, unless one of
// the two is a TLS session.
func whyPortable(a, b io.ReadWriteCloser, why Why) Why {
	for _, c := range []io.ReadWriteCloser{a, b} {
		// As crypto/tls has it: importing that for its name would be a lot.
		if _, ok := c.(interface{ Handshake() error }); ok {
			return engine.WhyTLS
		}
	}
	return why
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

func (s *portableSession) discard() {
	if stopped(s.Result()) && !s.taken.Swap(true) {
		s.Discard()
	}
}

func stopped(r Result) bool { return r.AToB.Reason == Stopped || r.BToA.Reason == Stopped }

// Result is complete once Done is closed.
func (s *portableSession) Result() Result { return s.Session.Wait() }
