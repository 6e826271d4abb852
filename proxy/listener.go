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
	key      socketKey
	ln       net.Listener
	addr     net.Addr
	listener atomic.Pointer[listener] // changes if an address does
	served   bool

	inherited string // the path of a unix socket's file that came with it

	// The server's lock is held for these.
	closed    bool
	full      bool // does not accept for want of room
	forwarder *splice.Forwarder
	file      *socketFile // to be removed
}

// serve begins to accept. After an error the socket is closed.
func (k *socket) serve() error {
	k.served = true
	s := k.listener.Load().server
	f, err := k.forward()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		go func() {
			k.accept()
			s.untrack(k)
		}()
		return nil
	case err != nil:
		_ = k.ln.Close()
		s.forget(k)
		return err
	}
	k.follow(f)
	return nil
}

// follow has f under control. It accepts already: if it was told meanwhile that
// there is no room, and there is again, nobody has told it that. The server's
// lock is held.
func (k *socket) follow(f *splice.Forwarder) {
	s := k.listener.Load().server
	k.forwarder = f
	k.full = false
	f.Resume()
	go func() {
		f.Wait()
		s.untrack(k)
	}()
	if k.closed {
		k.closeForwarder()
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
	l := k.listener.Load()
	l.sockets = slices.DeleteFunc(slices.Clone(l.sockets), func(o *socket) bool { return o == k })
	s.change()
}

// close accepts no more, and does not wait for it. The server's lock is held.
func (k *socket) close() {
	if k.closed {
		return
	}
	k.closed = true
	switch {
	case k.forwarder != nil:
		k.closeForwarder()
	default:
		_ = k.ln.Close()
		if !k.served {
			delete(k.listener.Load().server.sockets, k)
		}
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
	if k.inherited != "" {
		k.file = socketFileAt(k.inherited)
	}
	s := k.listener.Load().server
	return splice.Forward(ln, splice.Forwarding{
		Admit:    func() bool { return s.admit(k) },
		Accepted: k.accepted,
		Held: func(err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tell(unsaid{held: err, addr: k.addr})
		},
	})
}
