//go:build linux

package conformance

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// setUp: both ends are connected stream sockets, or a clear error that wraps
// the errno.
func setUp() []scenario {
	s := []scenario{
		{name: "same-socket-twice", run: sameSocketTwice},
		{name: "same-socket-through-another-descriptor", run: sameSocketDuplicated},
		{name: "already-joined", run: alreadyJoined},
		{name: "already-joined-through-another-descriptor", run: alreadyJoinedDuplicated, skip: func(p *place) bool { return p.own }},
		{name: "joined-again-after-the-end", run: joinedAgain},
		{name: "engine-not-built-in", run: engineMissing, plain: true},
		{name: "owned-connections-are-closed", run: ownedAreClosed, skip: func(p *place) bool { return !p.own }},
		{name: "reset-before", run: resetBefore, skip: func(p *place) bool { return p.network.A == Unix }},
		{name: "no-descriptor", run: noDescriptor, plain: true},
	}
	for _, bad := range []struct {
		name  string
		errno syscall.Errno
		make  func(t *testing.T) io.ReadWriteCloser
	}{
		{"pipe-ENOTSOCK", syscall.ENOTSOCK, anonymousPipe},
		{"file-ENOTSOCK", syscall.ENOTSOCK, regularFile},
		{"udp-ESOCKTNOSUPPORT", syscall.ESOCKTNOSUPPORT, udp},
		{"unixgram-ESOCKTNOSUPPORT", syscall.ESOCKTNOSUPPORT, unixSocket(syscall.SOCK_DGRAM)},
		{"unixpacket-ESOCKTNOSUPPORT", syscall.ESOCKTNOSUPPORT, unixSocket(syscall.SOCK_SEQPACKET)},
		{"tcp4-ENOTCONN", syscall.ENOTCONN, unconnected(syscall.AF_INET)},
		{"tcp6-ENOTCONN", syscall.ENOTCONN, unconnected(syscall.AF_INET6)},
		{"unix-ENOTCONN", syscall.ENOTCONN, unconnected(syscall.AF_UNIX)},
		{"listening-ENOTCONN", syscall.ENOTCONN, listening},
		{"closed-EBADF", syscall.EBADF, closedConn},
	} {
		s = append(s, scenario{name: bad.name, plain: true, run: func(t *testing.T, p *place) {
			t.Run("as-a", func(t *testing.T) {
				l := p.link(t)
				l.refused(bad.make(t), l.relayB, bad.errno)
				l.usable()
			})
			t.Run("as-b", func(t *testing.T) {
				l := p.link(t)
				l.refused(l.relayA, bad.make(t), bad.errno)
				l.usable()
			})
		}})
	}
	for _, bad := range []struct {
		name   string
		option splice.Option
	}{
		{"max-a-to-b", splice.MaxBytes(-1, 0)},
		{"max-b-to-a", splice.MaxBytes(0, -1)},
		{"idle", splice.IdleTimeout(-1)},
		{"half-close", splice.HalfCloseTimeout(-time.Second)},
		{"lifetime", splice.MaxLifetime(-time.Hour)},
	} {
		s = append(s, scenario{name: "negative-" + bad.name + "-EINVAL", plain: true, run: func(t *testing.T, p *place) {
			l := p.link(t)
			l.refused(l.relayA, l.relayB, syscall.EINVAL, bad.option)
			l.usable()
		}})
	}
	return s
}

// refused expects that a and b can't be joined, neither by Start nor by Relay.
func (l *Link) refused(a, b io.ReadWriteCloser, errno syscall.Errno, opts ...splice.Option) {
	l.t.Helper()
	s, err := splice.Start(a, b, l.options(opts...)...)
	switch {
	case err == nil:
		_, _ = s.Stop(l.t.(*testing.T).Context())
		l.t.Fatalf("Start joined them, want %v", errno)
	case s != nil:
		l.t.Errorf("Start returned a session and an error")
	case !errors.Is(err, errno):
		l.t.Errorf("Start: %v, want %v", err, errno)
	}
	if _, err := splice.Relay(l.t.(*testing.T).Context(), a, b, l.options(opts...)...); !errors.Is(err, errno) {
		l.t.Errorf("Relay: %v, want %v", err, errno)
	}
}

func sameSocketTwice(t *testing.T, p *place) {
	l := p.link(t)
	l.refused(l.relayA, l.relayA, syscall.EINVAL)
	l.refused(l.relayB, l.relayB, syscall.EINVAL)
	l.usable()
}

func sameSocketDuplicated(t *testing.T, p *place) {
	l := p.link(t)
	again := second(t, l.relayA)
	l.refused(l.relayA, again, syscall.EINVAL)
	l.refused(again, l.relayA, syscall.EINVAL)
	l.usable()
}

func alreadyJoined(t *testing.T, p *place) {
	l, other := p.link(t), p.link(t)
	a, b := l.relayA, l.relayB
	l.Start()
	if p.own {
		// The values passed to Start are closed: the socket is the session's.
		l.refused(a, other.relayB, syscall.EBADF)
	} else {
		l.refused(a, other.relayB, syscall.EBUSY)
		l.refused(other.relayA, a, syscall.EBUSY)
		l.refused(b, other.relayB, syscall.EBUSY)
		l.refused(other.relayA, b, syscall.EBUSY)
		l.refused(a, b, syscall.EBUSY)
	}
	// Neither was disturbed.
	l.forward().carry(0, 100_000, 10_000)
	l.backward().carry(0, 100_000, 10_000)
	other.usable()
}

func alreadyJoinedDuplicated(t *testing.T, p *place) {
	l, other := p.link(t), p.link(t)
	again := second(t, l.relayA)
	l.Start()
	l.refused(again, other.relayB, syscall.EBUSY)
	l.refused(other.relayA, again, syscall.EBUSY)
	l.forward().carry(0, 100_000, 10_000)
	other.usable()
}

func joinedAgain(t *testing.T, p *place) {
	l := p.link(t)
	w := l.forward()
	for i := range int64(3) {
		l.Start()
		w.carry(i*10_000, 10_000, 1000)
		res := l.Stop()
		if have := w.end(res).Bytes; have != 10_000 {
			t.Fatalf("session %d counts %d bytes, want its own 10000", i, have)
		}
	}
	l.usable()
}

// An engine that was asked for by name and is not there is an error, never
// silently another one.
func engineMissing(t *testing.T, p *place) {
	for _, e := range []splice.Engine{splice.EngineSockmap, splice.EngineWire, splice.Engine(200)} {
		l := p.link(t)
		s, err := splice.Start(l.relayA, l.relayB, l.options(splice.Use(e))...)
		if err == nil {
			// Built in by now: then it is the one in use, or why not is said.
			l.Session = s
			l.forward().carry(0, 1000, 1000)
			if d := s.Stats().AToB; d.Engine != e && d.Why.String() == "requested" {
				t.Errorf("asked for %v, have %+v", e, d)
			}
			continue
		}
		l.usable()
	}
}

func ownedAreClosed(t *testing.T, p *place) {
	l := p.link(t)
	a, b := l.relayA, l.relayB
	l.Start()
	for _, c := range []net.Conn{a, b} {
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write to a connection that was given away: %v, want %v", err, net.ErrClosed)
		}
	}
	l.forward().carry(0, 1000, 1000)
}

// A connection that was reset before it is joined is an error of Start, or a
// session that says so.
func resetBefore(t *testing.T, p *place) {
	l := p.link(t)
	w := l.forward()
	w.abort(0)
	eventually(t, "the reset at the relay", func() bool {
		hungUp, err := hangup(w.in())
		return err == nil && hungUp
	})
	s, err := splice.Start(l.relayA, l.relayB, l.options()...)
	if err != nil {
		if !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("start: %v, want %v or %v", err, syscall.ENOTCONN, syscall.ECONNRESET)
		}
		return
	}
	l.Session = s
	res := l.Wait()
	want(t, "a to b", res.AToB.Reason, "reset-by-source")
	w.receiveReset()
}

// noDescriptor: a connection without one is carried by copy, and said to be;
// an engine that needs one says so at once.
func noDescriptor(t *testing.T, p *place) {
	l := p.link(t)
	outer, inner := net.Pipe()
	defer outer.Close()
	s, err := splice.Start(inner, l.relayB, l.options()...)
	if err != nil {
		if p.engine.Name == "auto" || p.engine.Name == "copy" {
			t.Fatalf("start: %v", err)
		}
		inner.Close()
		l.usable()
		return
	}
	if !p.own {
		defer inner.Close()
	}
	l.Session, l.A = s, outer
	if err := outer.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	l.forward().carry(0, 300_000, 1000)
	l.backward().carry(0, 300_000, 100_000)
	for _, d := range []splice.DirectionStats{s.Stats().AToB, s.Stats().BToA} {
		if d.Engine != splice.EngineCopy || d.Spliced != 0 || d.Why.String() != "no-descriptor" && p.engine.Name != "copy" {
			t.Errorf("want engine copy, no-descriptor, have %+v", d)
		}
	}
	l.backward().finish() // to the client, which can't answer with a FIN of its own
	outer.Close()
	res := l.Wait()
	if res.AToB.Bytes != 300_000 || res.BToA.Bytes != 300_000 {
		t.Errorf("want 300000 bytes each way, have %+v", res)
	}
}

// second returns another connection value of the same socket.
func second(t *testing.T, c net.Conn) net.Conn {
	t.Helper()
	f, err := duplicate(c)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	again, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	return again
}

func anonymousPipe(t *testing.T) io.ReadWriteCloser {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r
}

func regularFile(t *testing.T) io.ReadWriteCloser {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func udp(t *testing.T) io.ReadWriteCloser {
	c, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func unixSocket(kind int) func(t *testing.T) io.ReadWriteCloser {
	return func(t *testing.T) io.ReadWriteCloser {
		x, y, err := socketpair(kind)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { x.Close(); y.Close() })
		return x
	}
}

func unconnected(domain int) func(t *testing.T) io.ReadWriteCloser {
	return func(t *testing.T) io.ReadWriteCloser {
		fd, err := syscall.Socket(domain, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		c, err := conn(fd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

// listeningConn has a listening socket pass for a connection.
type listeningConn struct{ *net.TCPListener }

func (listeningConn) Read([]byte) (int, error)  { return 0, syscall.ENOTCONN }
func (listeningConn) Write([]byte) (int, error) { return 0, syscall.ENOTCONN }

func listening(t *testing.T) io.ReadWriteCloser {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return listeningConn{ln.(*net.TCPListener)}
}

func closedConn(t *testing.T) io.ReadWriteCloser {
	x, y, err := TCP4.Dial()
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
	y.Close()
	return x
}
