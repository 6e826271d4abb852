package splice

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/sys"
)

// NewTarget makes a Target of an IP address and port.
func NewTarget(addr netip.AddrPort) (Target, error) {
	a, err := sys.TCPAddress(addr)
	return Target{Name: addr.String(), Address: a}, err
}

// NewUnixTarget makes a Target of the path of a unix socket.
func NewUnixTarget(path string) (Target, error) {
	a, err := sys.UnixAddress(path)
	return Target{Name: "unix:" + path, Address: a}, err
}

// planned is what the event loops make of a plan.
type planned struct{ plan *engine.Plan }

func (p *Plan) prepare(connectTimeout time.Duration) error {
	o := &p.options
	if err := o.openEngine(); err != nil {
		return err
	}
	var err error
	p.plan, err = reactor.Plan(engine.Plan{
		Kind: o.engine, Limits: o.limits(), Wire: o.wire, Timeout: min(connectTimeout, longest),
	})
	return err
}

// Forward accepts from ln on the event loops. It takes ln over and closes it,
// also keeping the file of a unix socket, which is then the caller's to remove.
// Sessions own their connections. An error that matches [errors.ErrUnsupported]
// leaves ln as it was: it gives no descriptor, or this is not Linux.
func Forward(ln net.Listener, f Forwarding) (*Forwarder, error) {
	if f.Accepted == nil {
		return nil, &Error{Op: "forward", Err: syscall.EINVAL}
	}
	switch ln.(type) {
	case *net.TCPListener, *net.UnixListener:
	default:
		return nil, &Error{Op: "forward", Err: fmt.Errorf("%w: %w", errNoForward, errors.ErrUnsupported)}
	}
	fd, err := dup(ln.(syscall.Conn))
	if err != nil {
		return nil, &Error{Op: "forward", Err: err}
	}
	a, err := reactor.Listen(engine.AcceptSpec{FD: fd, Admit: f.admit(), Accepted: f.accepted, Held: f.held(), Paused: f.Paused})
	if err != nil {
		_ = sys.Close(fd)
		return nil, &Error{Op: "forward", Err: err}
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	_ = ln.Close()
	return &Forwarder{acceptor{a}}, nil
}

type acceptor struct{ *engine.Acceptor }

func (a acceptor) file() (*os.File, error) {
	fd, err := a.Dup()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}

func (f *Forwarding) accepted(s *engine.Session, client netip.AddrPort) engine.Way {
	session := &Session{carrier: loopSession{s}, own: true}
	w := f.Accepted(session, client)
	if hold := w.Hold; hold != nil {
		session.carrier = nil // s is for the next one
		return engine.Way{Hold: func(h engine.Held) { hold(newHeld(h)) }}
	}
	if w.Plan == nil {
		session.carrier = nil
		return engine.Way{Hold: resetHeld}
	}
	if w.Handler == nil {
		w.Handler = nobody{}
	}
	return w.engine()
}

func resetHeld(h engine.Held) { h.Reset() }

func (w *Way) engine() engine.Way {
	return engine.Way{Plan: w.Plan.plan, Lifetime: w.Lifetime, Targets: w.Targets, Handler: w.Handler, Dialing: w.Dialing, Trying: w.Trying}
}

// heldFD is a held connection, and the access to its descriptor.
type heldFD struct{ engine.Held }

// newHeld makes both in one piece: in a flood there are many.
func newHeld(h engine.Held) *Held {
	one := &struct {
		Held
		fd heldFD
	}{fd: heldFD{h}}
	one.held = &one.fd
	return &one.Held
}

func (h *heldFD) SyscallConn() (syscall.RawConn, error) { return h, nil }

func (h *heldFD) Control(f func(fd uintptr)) error {
	f(uintptr(h.FD))
	return nil
}

// Read and Write wait for nothing, as nobody is told when there is something.
func (h *heldFD) Read(f func(fd uintptr) bool) error  { return h.once(f) }
func (h *heldFD) Write(f func(fd uintptr) bool) error { return h.once(f) }

func (h *heldFD) once(f func(fd uintptr) bool) error {
	if !f(uintptr(h.FD)) {
		return syscall.EAGAIN
	}
	return nil
}

func (h *heldFD) listen(said func(gone bool)) error { return h.Listen(said) }

func (h *heldFD) proceed(w Way) (*Session, error) {
	s, err := h.Go(w.engine())
	if err != nil {
		h.reset()
		return nil, &Error{Op: "forward", Err: err}
	}
	return &Session{carrier: loopSession{s}, own: true}, nil
}

func (h *heldFD) reset() { h.Reset() }

func (h *heldFD) conn() (net.Conn, error) {
	h.Deafen()
	f := os.NewFile(uintptr(h.FD), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		_ = sys.Disconnect(h.FD)
	}
	return c, err
}

func (f *Forwarding) admit() func() bool {
	if f.Admit == nil {
		return func() bool { return true }
	}
	return f.Admit
}

func (f *Forwarding) held() func(error) {
	if f.Held == nil {
		return func(error) {}
	}
	return f.Held
}
