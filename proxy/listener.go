package proxy

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/spliced-io/spliced/proxy/internal/access"
	"github.com/spliced-io/spliced/splice"
)

// A listener is one of the configuration. It keeps its counts as long as its
// name is there.
type listener struct {
	server *Server
	name   string
	policy atomic.Pointer[policy]

	// The server's lock is held for these.
	sockets   []*socket
	maxConns  int // 0: no limit
	perClient int // 0: no limit
	clients   map[netip.Addr]int
	open      int
	leaving   int  // of these, those that have ended
	hurrying  bool // clients that say nothing have to make room
	accepted  uint64
	failed    uint64
	ended     totals
	account   account
	copied    Carried // the most that was told of
}

// configure gives l what its configuration says, but for the sockets. The
// server's lock is held.
func (l *listener) configure(c *Listener, p *policy) {
	l.policy.Store(p)
	l.maxConns, l.perClient = c.MaxConnections, c.MaxConnectionsPerClient
}

func (l *listener) addrs() []net.Addr {
	list := make([]net.Addr, len(l.sockets))
	for i, k := range l.sockets {
		list[i] = k.addr
	}
	return list
}

// enter says why a client may have no other connection, or counts it. The
// server's lock is held.
func (l *listener) enter(c *conn, p *policy) error {
	if !p.rules.Allow(c.client.Addr()) {
		return errDenied
	}
	if !p.rate.Take(c.client.Addr()) {
		return errTooOften
	}
	client := access.Client(c.client.Addr())
	if l.perClient == 0 || !client.IsValid() {
		return nil
	}
	if l.clients[client] >= l.perClient {
		return errTooMany
	}
	l.count(c)
	return nil
}

// count notes that a client has a connection more. The server's lock is held.
func (l *listener) count(c *conn) {
	c.counted = true
	if l.clients == nil {
		l.clients = make(map[netip.Addr]int)
	}
	l.clients[access.Client(c.client.Addr())]++
}

// release forgets a connection that has ended. The server's lock is held.
func (l *listener) release(c *conn) {
	l.open--
	if !c.counted {
		return
	}
	client := access.Client(c.client.Addr())
	if l.clients[client]--; l.clients[client] <= 0 {
		delete(l.clients, client)
	}
}

// A socketKey is what makes a listening socket the same as another.
type socketKey struct {
	address string
	options SocketOptions
}

// A socket accepts connections for a listener: on the event loops where it can
// be, else by a goroutine.
type socket struct {
	server   *Server
	key      socketKey
	ln       net.Listener
	addr     net.Addr
	listener atomic.Pointer[listener] // nil until it is in force; changes if an address does

	inherited *socketFile // came with it, and is the predecessor's until this accepts

	// The server's lock is held for these.
	preparing bool
	accepting bool // or was
	closed    bool
	full      bool              // does not accept for want of room
	forwarder *splice.Forwarder // nil: a goroutine accepts
	file      *socketFile       // to be removed
}

// prepare does what can fail before the socket accepts. After an error it is still
// to be closed.
func (k *socket) prepare() error {
	s := k.server
	s.mu.Lock()
	k.preparing = !k.closed
	closed := k.closed
	s.mu.Unlock()
	if closed {
		return ErrServerClosed
	}
	f, err := k.forward()
	s.mu.Lock()
	defer s.mu.Unlock()
	k.preparing = false
	if err == nil {
		k.forwarder = f
		go func() {
			f.Wait()
			s.untrack(k)
		}()
	}
	if k.closed {
		k.closeNow()
		return ErrServerClosed
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // a goroutine can
	}
	return err
}

// accept begins to, once the socket is prepared. The server's lock is held.
func (k *socket) accept() {
	if k.closed {
		return
	}
	k.accepting = true
	if k.inherited != nil {
		k.file = k.inherited
	}
	if k.forwarder != nil {
		k.forwarder.Resume()
		return
	}
	go func() {
		k.acceptAll()
		k.server.untrack(k)
	}()
}

// discard closes a socket that has not come into force.
func (k *socket) discard() {
	k.server.mu.Lock()
	k.close()
	f := k.forwarder
	k.server.mu.Unlock()
	if f != nil {
		f.Wait() // until then the address is taken
	}
}

func (s *Server) untrack(k *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(k)
}

// forget takes out a socket that is closed. s.mu is held.
func (s *Server) forget(k *socket) {
	delete(s.sockets, k)
	if l := k.listener.Load(); l != nil {
		l.sockets = slices.DeleteFunc(slices.Clone(l.sockets), func(o *socket) bool { return o == k })
	}
	s.change()
}

// close accepts no more, and does not wait for it. The server's lock is held.
func (k *socket) close() {
	if k.closed {
		return
	}
	k.closed = true
	if !k.preparing { // else prepare does the rest
		k.closeNow()
	}
}

func (k *socket) closeNow() {
	if k.forwarder != nil {
		k.closeForwarder()
		return
	}
	_ = k.ln.Close()
	if !k.accepting { // else its goroutine does
		k.server.forget(k)
	}
}

func (k *socket) closeForwarder() {
	k.file.remove()
	k.forwarder.Close()
}

func (k *socket) resume() {
	if k.forwarder != nil {
		k.forwarder.Resume()
	}
}

// forward hands the socket to the event loops, which accept, dial and join:
// that is where the bytes are moved too. The error matches
// errors.ErrUnsupported where it can't be done.
func (k *socket) forward() (*splice.Forwarder, error) {
	ln := k.ln
	if bound, ok := ln.(*boundUnix); ok {
		ln, k.file = bound.UnixListener, bound.file
	}
	s := k.server
	return splice.Forward(ln, splice.Forwarding{
		Paused:   true,
		Admit:    func() bool { return s.admit(k) },
		Accepted: k.accepted,
		Held: func(err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tell(unsaid{held: err, addr: k.addr})
		},
	})
}
