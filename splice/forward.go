package splice

import (
	"errors"
	"net/netip"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
)

// A Forwarding says what becomes of the connections to a listener. Its
// functions, and a [Handler]'s methods, are called by the goroutines that move
// bytes, several at a time: they must not block.
type Forwarding struct {
	// ConnectTimeout bounds the connect to each target.
	ConnectTimeout time.Duration
	// Admit is asked before each accept; nil admits everybody. After false
	// nothing is accepted until [Forwarder.Resume]. A connection more for each
	// further CPU may be accepted than were admitted.
	Admit func() bool
	// Accepted is told of each connection and returns where it may go, in the
	// order of trial, and who hears what became of it. client is invalid for a
	// unix socket.
	Accepted func(s *Session, client netip.AddrPort) ([]Target, Handler)
	// Held is told when accepting has to pause, for lack of descriptors, say.
	// It goes on by itself.
	Held func(error)
}

// A Handler follows one forwarded connection.
type Handler = engine.Handler

// A Target is an address to connect to, resolved.
type Target = engine.Target

// A Forwarder accepts connections and joins each to a target. All of it, accept
// and connect included, is done by the goroutines that move the bytes: compared
// with accepting and dialling by package net, a connection costs two thirds of
// the CPU time.
type Forwarder struct{ forwarder }

type forwarder interface {
	Resume()
	Close()
	Wait()
}

// Resume accepts again after Admit has said no.
func (f *Forwarder) Resume() { f.forwarder.Resume() }

// Close accepts no more. The sessions go on.
func (f *Forwarder) Close() { f.forwarder.Close() }

// Wait returns when nothing is accepted any more, after a Close.
func (f *Forwarder) Wait() { f.forwarder.Wait() }

var errNoForward = errors.New("accepting inside the event loops needs Linux and a listener with a descriptor")
