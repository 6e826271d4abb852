package proxy

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// DefaultConnectTimeout bounds the dial of one target.
const DefaultConnectTimeout = 5 * time.Second

// ErrServerClosed is what [Server.Serve] returns after [Server.Shutdown] or
// [Server.Close].
var ErrServerClosed = errors.New("proxy: server closed")

// A Server joins each connection that its listeners accept to a target. The
// zero value needs Targets only. The exported fields must not be changed once
// Serve was called; all methods are safe for concurrent use.
type Server struct {
	// Targets are tried in turn until one can be dialled.
	Targets []Addr
	// Options apply to every session. Own and OnEnd are the server's.
	Options []splice.Option
	// ConnectTimeout bounds the dial of each target. 0 is
	// [DefaultConnectTimeout].
	ConnectTimeout time.Duration
	// MaxConns is how many connections may be open at a time. Further ones are
	// not refused: they wait in the kernel's queue until another has ended. One
	// more for each further listener and CPU may be accepted. 0, or more than
	// that, is [RoomForConns].
	MaxConns int
	// Hooks tell what happens.
	Hooks Hooks

	mu        sync.Mutex
	ctx       context.Context // of the dials; ends with Close
	cancel    context.CancelFunc
	closing   bool
	aborting  bool
	listeners map[net.Listener]struct{}
	changed   chan struct{} // closed at the next change; nil while nobody waits

	maxConns int // the limit that holds
	lastID   uint64
	accepted uint64
	failed   uint64
	open     int  // accepted, and the end not yet reported
	starved  int  // connections that wait for a descriptor
	dialing  list // by the event loops
	live     list // joined
	ended    totals
	unsaid   []unsaid // what the hooks have still to be told
	saying   bool     // somebody tells them
	full     bool     // forwarders wait for room
}

// Stats counts what a [Server] did.
type Stats struct {
	Accepted uint64 // clients
	Failed   uint64 // of these, joined to no target
	Ended    uint64 // of these, joined and ended
	Open     int    // accepted and not yet ended
	Joined   int    // of these, joined

	BytesToTarget, BytesToClient     int64
	SplicedToTarget, SplicedToClient int64
}

type totals struct {
	conns                            uint64
	bytesToTarget, bytesToClient     int64
	splicedToTarget, splicedToClient int64
}

func (t *totals) add(s splice.Stats) {
	t.bytesToTarget += s.AToB.Bytes
	t.bytesToClient += s.BToA.Bytes
	t.splicedToTarget += s.AToB.Spliced
	t.splicedToClient += s.BToA.Spliced
}

// Serve accepts from ln until the server is closed, which closes ln too. It
// may be called for several listeners. A failing accept is reported by
// [Hooks.Held] and tried again, ever more slowly, up to once a second.
func (s *Server) Serve(ln net.Listener) error {
	wait, err := s.Start(ln)
	if err != nil {
		return err
	}
	return wait()
}

// Start does the first half of [Server.Serve]: when it returns without an
// error, connections to ln are accepted. wait does the second half, and must be
// called.
func (s *Server) Start(ln net.Listener) (wait func() error, err error) {
	if len(s.Targets) == 0 {
		return nil, errors.New("proxy: serve without a target")
	}
	if !s.track(ln) {
		_ = ln.Close()
		return nil, ErrServerClosed
	}
	f, err := s.forward(ln)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return func() error {
			defer s.untrack(ln)
			return s.accept(ln)
		}, nil
	case err != nil:
		s.untrack(ln)
		return nil, err
	}
	s.swap(ln, f)
	return func() error {
		defer s.untrack(f)
		f.Wait()
		return ErrServerClosed
	}, nil
}

// Shutdown stops accepting and waits until every connection has ended by
// itself, or until ctx ends: then it returns the error of ctx, and the
// connections go on until Close is called.
func (s *Server) Shutdown(ctx context.Context) error {
	s.close(false)
	s.mu.Lock()
	for s.busy() {
		if err := s.wait(ctx.Done(), nil); err != nil {
			s.mu.Unlock()
			return ctx.Err()
		}
	}
	s.mu.Unlock()
	return nil
}

// Close stops accepting, resets every connection, and returns when the last
// one was reported.
func (s *Server) Close() error {
	s.close(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy() {
		_ = s.wait(nil, nil)
	}
	return nil
}

// Stats returns the counts so far. The bytes of live connections are in them,
// and no count ever falls.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	t := s.ended
	st := Stats{
		Accepted: s.accepted,
		Failed:   s.failed,
		Ended:    t.conns,
		Open:     s.open,
		Joined:   s.live.len,
	}
	sessions := s.live.sessions()
	s.mu.Unlock()
	// Outside the lock: a session that reports its end holds its own and wants
	// this one. One that ends meanwhile keeps its counts.
	for _, session := range sessions {
		t.add(session.Stats())
	}
	st.BytesToTarget, st.BytesToClient = t.bytesToTarget, t.bytesToClient
	st.SplicedToTarget, st.SplicedToClient = t.splicedToTarget, t.splicedToClient
	return st
}

// Accepting reports whether the server has a listener and was not told to
// stop.
func (s *Server) Accepting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closing && len(s.listeners) > 0
}

func (s *Server) track(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.init()
	s.listeners[ln] = struct{}{}
	return true
}

// swap puts a listener in the place of another.
func (s *Server) swap(old, new net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, old)
	s.listeners[new] = struct{}{}
	if s.closing {
		_ = new.Close()
	}
}

func (s *Server) untrack(ln net.Listener) {
	_ = ln.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
	s.change()
}

// init makes what the zero value lacks. s.mu is held.
func (s *Server) init() {
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancel(context.Background())
		s.listeners = make(map[net.Listener]struct{})
		s.maxConns = RoomForConns()
		if s.MaxConns > 0 {
			s.maxConns = min(s.maxConns, s.MaxConns)
		}
	}
}

func (s *Server) close(abort bool) {
	s.mu.Lock()
	s.init()
	s.closing = true
	for ln := range s.listeners {
		_ = ln.Close()
	}
	var sessions []*splice.Session
	if abort && !s.aborting {
		s.aborting = true
		s.cancel()
		sessions = append(s.live.sessions(), s.dialing.sessions()...)
	}
	s.change()
	s.mu.Unlock()
	abortAll(sessions)
}

// busy reports whether anything of the server still runs. s.mu is held.
func (s *Server) busy() bool { return s.open > 0 || len(s.listeners) > 0 || s.saying }

// errTimedOut says that wait ended for another reason than a change.
var errTimedOut = errors.New("timed out")

// wait returns nil when something has changed, and errTimedOut when one of the
// channels is ready first. s.mu is held, and let go meanwhile.
func (s *Server) wait(done <-chan struct{}, timeout <-chan time.Time) error {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	changed := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-done:
	case <-timeout:
	}
	return errTimedOut
}

// change wakes those who wait. s.mu is held.
func (s *Server) change() {
	if s.full && s.open < s.maxConns {
		s.full = false
		for ln := range s.listeners {
			if f, ok := ln.(*forwarder); ok {
				f.Resume()
			}
		}
	}
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}
