package splice

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
)

// A Forwarding says what becomes of the connections to a listener. Its
// functions, and a [Handler]'s methods, are called by the goroutines that move
// bytes, several at a time: they must not block.
type Forwarding struct {
	// Admit is asked before each accept; nil admits everybody. After false
	// nothing is accepted until [Forwarder.Resume]. A connection more for each
	// further CPU may be accepted than were admitted.
	Admit func() bool
	// Accepted is told of each connection and says what becomes of it. client
	// is invalid for a unix socket. The session may be kept, and used once
	// Accepted has returned a way with a plan; else it is nobody's.
	Accepted func(s *Session, client netip.AddrPort) Way
	// Held is told when accepting has to pause, for lack of descriptors, say.
	// It goes on by itself.
	Held func(error)
	// Paused accepts nobody until the first [Forwarder.Resume]. Until then nobody
	// else who accepts from the same socket misses a client for it.
	Paused bool
}

// A Way is what becomes of one forwarded connection: it is connected to one of
// the targets, or handed over. The zero Way sends the client a RST.
type Way struct {
	Plan     *Plan         // without one the client is sent a RST, and nobody is told
	Lifetime time.Duration // takes the place of the plan's [MaxLifetime]; 0 keeps that
	Targets  []Target      // in the order of trial; without any the client is sent a RST
	Handler  Handler       // hears what became of it; nil is nobody

	// Dialing, if it is not nil, is told which local address a target is dialled from
	// as soon as that is sure: before it has answered. It must not block.
	Dialing func(local netip.AddrPort)
	// Trying, if it is not nil, is asked before each target but the first is dialled, more
	// than once where descriptors are lacking. After false it is passed over, as one that
	// was not tried. It must not block.
	Trying func(target int) bool

	// Hold, if it is not nil, is given the connection, and nothing else counts:
	// for those whose way it takes time to find out. It must not block either.
	Hold func(*Held)
}

// Held is an accepted connection whose way is not known yet. One of Go, Conn and
// Reset must be called in the end, and nothing after it. Its SyscallConn is for
// looking at what the client says, and Listen for being told that there is something.
type Held struct{ held }

type held interface {
	SyscallConn() (syscall.RawConn, error)
	listen(said func(gone bool)) error
	proceed(Way) (*Session, error)
	conn() (net.Conn, error)
	reset()
}

// SyscallConn gives the descriptor, as that of [net.TCPConn] does.
func (h *Held) SyscallConn() (syscall.RawConn, error) { return h.held.SyscallConn() }

// Listen has the event loop call said when the client has said something, also for what it
// has said already, and with gone when it says nothing any more: how much, and why, is to be
// looked up. It may be called once, by [Way.Hold] before that returns. The end of it is Go,
// Conn or Reset, while said may be running, or about to. said must not block.
func (h *Held) Listen(said func(gone bool)) error { return h.listen(said) }

// Go has the connection take its way inside the event loops, and returns its session,
// whose Handler may have been told of its end by then. The Hold of w is ignored. Without
// a plan the client is sent a RST and there is no session; it is sent one after an error
// too, which is for want of descriptors.
func (h *Held) Go(w Way) (*Session, error) {
	if w.Plan == nil {
		h.reset()
		return nil, nil
	}
	if w.Handler == nil {
		w.Handler = nobody{}
	}
	return h.proceed(w)
}

// Conn takes the connection out, the caller's from then on; the session is nobody's.
// After an error, which is for want of descriptors as a rule, the client was sent
// a RST.
func (h *Held) Conn() (net.Conn, error) { return h.conn() }

// Reset sends the client a RST.
func (h *Held) Reset() { h.reset() }

// nobody is the Handler of who wants to hear nothing.
type nobody struct{}

func (nobody) Sockets(bool)                           {}
func (nobody) Note(Flow) string                       { return "" }
func (nobody) Connected(int, netip.AddrPort, []error) {}
func (nobody) Failed(error, []error)                  {}
func (nobody) Ended(Result)                           {}

// A Plan says how connections are carried. It may be used any number of times:
// by [Way], and with [Follow] by [Start].
type Plan struct {
	planned
	options options
}

// NewPlan makes a Plan of the options of [Start], without [Prefetched], [Own]
// [OnEnd], [OnSockets] and [Note]. connectTimeout bounds the connect to each target of a [Way], and
// must be positive. An engine that can't run here is an error.
func NewPlan(connectTimeout time.Duration, opts ...Option) (*Plan, error) {
	p := &Plan{}
	for _, opt := range opts {
		opt(&p.options)
	}
	o := &p.options
	if err := o.check(); err != nil {
		return nil, &Error{Op: "plan", Err: err}
	}
	if len(o.fromA) != 0 || len(o.fromB) != 0 || o.onEnd != nil || o.onSockets != nil || o.note != nil || o.own || connectTimeout <= 0 {
		return nil, &Error{Op: "plan", Err: syscall.EINVAL}
	}
	if err := p.prepare(connectTimeout); err != nil {
		return nil, &Error{Op: "plan", Err: err}
	}
	return p, nil
}

// Follow gives [Start] the options of p; those that come after it change them.
func Follow(p *Plan) Option { return func(o *options) { *o = p.options } }

// A Handler follows one forwarded connection.
type Handler = engine.Handler

// A Target is an address to connect to, resolved.
type Target = engine.Target

// RaceDelay is how long an address of a server has before the next one is tried beside
// it, if that is a [Target.Beside]: the Connection Attempt Delay that RFC 8305
// recommends.
const RaceDelay = engine.RaceDelay

// A Forwarder accepts connections and joins each to a target. All of it, accept
// and connect included, is done by the goroutines that move the bytes: compared
// with accepting and dialling by package net, a connection costs two thirds of
// the CPU time.
type Forwarder struct{ forwarder }

type forwarder interface {
	Resume()
	Pause()
	Close()
	Wait()
	file() (*os.File, error)
}

// Resume accepts again after Admit has said no, and begins to where
// [Forwarding.Paused] was set.
func (f *Forwarder) Resume() { f.forwarder.Resume() }

// Pause accepts nobody until Resume. Of several processes that wait for the same
// listening socket the kernel wakes one for a connection: when Pause returns,
// this one is none of them, and no connection waits for it. It must not be
// called by the functions of [Forwarding].
func (f *Forwarder) Pause() { f.forwarder.Pause() }

// Close accepts no more. The sessions go on.
func (f *Forwarder) Close() { f.forwarder.Close() }

// File returns another descriptor of the listening socket, which is the caller's
// to close: for a process that goes on accepting.
func (f *Forwarder) File() (*os.File, error) {
	file, err := f.forwarder.file()
	if err != nil {
		return nil, &Error{Op: "forward", Err: err}
	}
	return file, nil
}

// Wait returns when nothing is accepted any more, after a Close.
func (f *Forwarder) Wait() { f.forwarder.Wait() }

var errNoForward = errors.New("accepting inside the event loops needs Linux and a listener with a descriptor")
