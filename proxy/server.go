package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/peek"
	"github.com/spliced-io/spliced/splice"
)

// ErrServerClosed is what [Server.Start] and [Server.Reload] return after
// [Server.Shutdown] or [Server.Close].
var ErrServerClosed = errors.New("proxy: server closed")

// ErrSucceeded is what changes are refused with after [Server.HandOver]. It matches
// [ErrServerClosed].
var ErrSucceeded = fmt.Errorf("another process has taken the place of this one: want that to be asked: %w", ErrServerClosed)

// A Server joins the connections that its listeners accept to the servers of
// its upstreams. The exported fields must not be changed once Run or Start was
// called; all methods are safe for concurrent use.
type Server struct {
	// Config is what to do at the start. [Server.Reload] brings another.
	Config Config
	// Hooks tell what happens.
	Hooks Hooks
	// Wire says whether connections of the engine auto are handed over to wire. The
	// zero value says never; when, its AfterBytes and AfterAge, is the configuration's
	// ([Config.Wire]). With an instance, the start adopts the flows that an earlier
	// process has left, and Leave leaves them again.
	Wire splice.WirePolicy
	// Listen opens the sockets of a listener's address, one as a rule. Nil is
	// [Listen]. They are closed by the server.
	Listen func(ctx context.Context, addr Addr, o SocketOptions) ([]net.Listener, error)
	// BeforeAccept is called by Start once the sockets are open, before the first
	// connection is accepted. Its error ends the start.
	BeforeAccept func() error
	// Inheritance is what another process hands over. Start takes its sockets where
	// the configuration has them, and then its connections.
	Inheritance *Inheritance

	// configuring is closed while the configuration changes.
	configuring gate
	// instance is held while the server takes the instance, or lets go of it. It comes before mu.
	instance sync.Mutex
	// steering is held while what an operator says would be lost.
	steering   sync.Mutex
	succeeded  atomic.Bool // another process accepts in the place of this one
	background sync.WaitGroup
	guests     peek.Room // clients whose first bytes are waited for

	fileInterval time.Duration // between two looks at certificates; 0: the usual one

	mu        sync.Mutex
	config    Config          // in force, complete with defaults
	ctx       context.Context // of dials, checks and resolvers; ends with Close
	cancel    context.CancelFunc
	closing   bool
	aborting  bool
	sockets   map[*socket]struct{}
	listeners map[string]*listener
	upstreams map[string]*upstream
	changed   chan struct{} // closed at the next change; nil while nobody waits

	maxConns int // as configured; 0: no limit
	files    int // how many connections there are descriptors for
	lastID   uint64
	accepted uint64
	failed   uint64
	adopted  uint64
	left     bool               // sessions of the instance go on without the server
	holds    bool               // the instance
	letGo    bool               // of the instance: another process is to have it
	others   []splice.Flow      // of the instance, that are its predecessor's yet
	open     int                // accepted, and the end not yet reported
	leaving  int                // of these, those that have ended
	hurrying bool               // clients that say nothing have to make room
	bare     int                // of these, without descriptors
	starved  int                // connections that wait for a descriptor
	dialing  list               // by the event loops
	live     list               // joined
	outward  map[outwardWay]int // by which original destinations are dialled, or are connected to
	ended    totals
	unsaid   []unsaid // what the hooks have still to be told
	said     []unsaid // empty: its other array
	saying   bool     // somebody tells them

	pausing    bool       // another process is about to accept
	foundlings foundlings // for who adopts, one at a time
	first      *places    // of connections adopted before there was a configuration; s.configuring guards it

	parting  bool     // connections are handed over to another process
	parted   []parted // of these, those whose session has ended
	arriving bool     // connections of another process are taken over
}

// Run does what the configuration says until ctx ends, then drains as it says.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	_ = s.Drain(context.Background())
	return s.Close()
}

// Start opens the listeners. When it returns without an error, connections to
// them are accepted; after an error nothing of the server is left. [Server.Close]
// must be called in the end. ctx is for the start alone.
func (s *Server) Start(ctx context.Context) error {
	if err := s.configuring.enter(ctx); err != nil {
		return err
	}
	defer s.configuring.leave()
	s.mu.Lock()
	s.init()
	closing, started := s.closing, s.upstreams != nil
	s.mu.Unlock()
	switch {
	case closing:
		return ErrServerClosed
	case started:
		return errors.New("proxy: the server was started before")
	}
	s.first = newPlaces(s)
	defer func() { s.first = nil }()
	if err := s.adopt(); err != nil {
		_ = s.Close()
		return err
	}
	next, err := s.plan(ctx, s.Config)
	if err == nil {
		err = s.begin(ctx, next)
	}
	if err != nil {
		s.Inheritance.Refuse(err)
		s.Leave()
		_ = s.Close()
		return err
	}
	s.first.retire()
	s.start(s.watchFiles)
	return nil
}

// begin brings the first configuration into force. It takes the place of another
// process only when nothing can fail any more.
func (s *Server) begin(ctx context.Context, next *transition) error {
	if err := next.commit(ctx); err != nil {
		next.discard()
		return err
	}
	if s.BeforeAccept != nil {
		if err := s.BeforeAccept(); err != nil {
			return err
		}
	}
	if err := next.prepare(); err != nil {
		return err
	}
	if err := s.succeed(ctx); err != nil {
		return err
	}
	next.accept()
	return nil
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
	for s.busy() {
		_ = s.wait(nil, nil)
	}
	s.mu.Unlock()
	s.background.Wait()
	s.leaveInstance()
	return nil
}

// Accepting reports whether the server has a listener and was not told to
// stop.
func (s *Server) Accepting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closing && len(s.sockets) > 0
}

// init makes what the zero value lacks. s.mu is held.
func (s *Server) init() {
	if s.ctx == nil {
		ctx, cancel := context.WithCancelCause(context.Background())
		s.ctx, s.cancel = ctx, func() { cancel(ErrServerClosed) }
		s.sockets = make(map[*socket]struct{})
		s.files = s.Config.RoomForConns()
	}
}

func (s *Server) close(abort bool) {
	s.mu.Lock()
	s.init()
	s.closing = true
	for k := range s.sockets {
		k.close()
	}
	var sessions []*splice.Session
	if abort && !s.aborting {
		s.aborting = true
		s.cancel()
		sessions = append(s.live.sessions(nil), s.dialing.sessions(nil)...)
	}
	s.change()
	s.mu.Unlock()
	abortAll(sessions)
	if abort {
		s.guests.Close()
	}
}

// busy reports whether anything of the server still runs. s.mu is held.
func (s *Server) busy() bool { return s.open > 0 || len(s.sockets) > 0 || s.saying || s.arriving }

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
	for k := range s.sockets {
		l := k.listener.Load()
		if l == nil {
			continue // not in force yet
		}
		s.relax(l)
		if k.full && !s.pausing && s.room(l) {
			k.full = false
			k.resume()
		}
	}
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// room reports whether another connection of l may be open. s.mu is held.
func (s *Server) room(l *listener) bool {
	return s.open < s.limit() && (l.maxConns == 0 || l.open < l.maxConns)
}

// limit is how many connections may be open. s.mu is held.
func (s *Server) limit() int {
	n := s.files + s.bare
	if s.maxConns > 0 {
		n = min(n, s.maxConns)
	}
	return n
}

// start runs f in the background; Close waits for its end. False says that the
// server is being closed, and that f was not started.
func (s *Server) start(f func(ctx context.Context)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborting {
		return false
	}
	s.background.Add(1)
	go func() {
		defer s.background.Done()
		f(s.ctx)
	}()
	return true
}

// sortedListeners returns the listeners by name. s.mu is held.
func (s *Server) sortedListeners() []*listener {
	list := make([]*listener, 0, len(s.listeners))
	for _, name := range slices.Sorted(maps.Keys(s.listeners)) {
		list = append(list, s.listeners[name])
	}
	return list
}

// sortedUpstreams returns the upstreams by name. s.mu is held.
func (s *Server) sortedUpstreams() []*upstream {
	list := make([]*upstream, 0, len(s.upstreams))
	for _, name := range slices.Sorted(maps.Keys(s.upstreams)) {
		list = append(list, s.upstreams[name])
	}
	return list
}

// Addrs returns where a listener listens, as bound.
func (s *Server) Addrs(listener string) []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.listeners[listener]
	if l == nil {
		return nil
	}
	return l.addrs()
}

// errors of connections that are refused before any server is tried.
var (
	errNoRoute    = errors.New("no route matches")
	errRejected   = errors.New("rejected by its route")
	errTooMany    = errors.New("the client has too many connections")
	errNoServer   = errors.New("no server is up")
	errQueueFull  = errors.New("every server is full, and so is the queue")
	errQueueLate  = errors.New("every server is full, and none had room in time")
	errHandshake  = errors.New("the client has not said in time what the listener has to know")
	errEvicted    = errors.New("others needed the place of the client, which had not yet said what the listener has to know")
	errDenied     = errors.New("the client's address is not allowed")
	errTooOften   = errors.New("the client connects too often")
	errClientTLS  = errors.New("TLS with the client")
	errLeftBefore = errors.New("the client has left without a word")
	errServerTLS  = errors.New("TLS with")
	errNoVacancy  = errors.New("the limit of open files has no room for more connections of the process before this one")
	errNotStarted = fmt.Errorf("proxy: not started: %w", ErrServerClosed)
)
