package proxy

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/setting"
	"github.com/spliced-io/spliced/proxy/internal/tlsfiles"
)

// Reload brings another configuration into force. It is checked whole, and its
// new sockets are opened, before anything changes: after an error everything is
// as it was. What is the same in both is not touched: sockets, connections,
// the health of servers, counters. A listener or upstream is the same if its
// name is, a server if its address is.
func (s *Server) Reload(ctx context.Context, c Config) error {
	if err := s.configuring.enter(ctx); err != nil {
		return fmt.Errorf("wait for another reload, or an upgrade: %w", err)
	}
	defer s.configuring.leave()
	if err := s.running(); err != nil {
		return err
	}
	next, err := s.plan(ctx, c)
	if err != nil {
		return err
	}
	err = next.prepare()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx) // files were read for too long
	}
	if err == nil {
		err = next.commit(ctx)
	}
	if err != nil {
		next.discard()
		return err
	}
	next.accept()
	return nil
}

// running says why a server can't be changed or handed over: it is not started, or ends.
func (s *Server) running() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.upstreams == nil:
		return errNotStarted
	case s.succeeded.Load():
		return ErrSucceeded
	case s.closing:
		return ErrServerClosed
	}
	return nil
}

// CurrentConfig returns the configuration in force, defaults filled in.
func (s *Server) CurrentConfig() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.config
}

// A transition is a configuration on its way into force: all that can fail is done
// before commit.
type transition struct {
	server    *Server
	config    Config
	upstreams map[string]*upstream
	sessions  map[string]*tlsfiles.Client // of upstreams
	policies  map[string]*policy          // of listeners
	sockets   map[string][]*socket        // of listeners
	fresh     []*socket                   // of these, those that were not there before
}

// plan checks c, and opens what it needs. After an error nothing is left of it.
// s.configuring is closed to others.
func (s *Server) plan(ctx context.Context, c Config) (*transition, error) {
	if problems := c.Check(); problems != nil {
		return nil, problems
	}
	setting.Fill(&c)
	next := &transition{
		server: s, config: c,
		upstreams: make(map[string]*upstream, len(c.Upstreams)),
		sessions:  make(map[string]*tlsfiles.Client),
		policies:  make(map[string]*policy, len(c.Listeners)),
		sockets:   make(map[string][]*socket),
	}
	for name, u := range c.Upstreams {
		if next.upstreams[name] = s.upstreams[name]; next.upstreams[name] == nil {
			next.upstreams[name] = s.first.newUpstream(s, name)
		}
		if u.TLS == nil {
			continue
		}
		t, err := tlsfiles.NewClient(u.TLS.files())
		if err != nil {
			return nil, fmt.Errorf("upstream %s: tls: %w", name, err)
		}
		next.sessions[name] = t
	}
	wire := s.Wire
	wire.AfterBytes, wire.AfterAge = int64(c.Wire.AfterBytes), time.Duration(c.Wire.AfterAge)
	for name, l := range c.Listeners {
		var before *policy
		if have := s.listeners[name]; have != nil {
			before = have.policy.Load()
		}
		p, err := newPolicy(&l, before, c.Upstreams, next.upstreams, wire)
		if err != nil {
			return nil, fmt.Errorf("listener %s: %w", name, err)
		}
		next.policies[name] = p
	}
	if err := next.openSockets(ctx); err != nil {
		next.discard()
		return nil, err
	}
	return next, nil
}

// prepare does with the new sockets what can fail.
func (n *transition) prepare() error {
	for name, sockets := range n.sockets {
		for _, k := range sockets {
			if !slices.Contains(n.fresh, k) {
				continue
			}
			if err := k.prepare(); err != nil {
				return fmt.Errorf("listener %s: listen on %s: %w", name, k.key.address, err)
			}
		}
	}
	return nil
}

// discard gives up what was opened. It is not called after a commit.
func (n *transition) discard() {
	for _, k := range n.fresh {
		k.discard()
	}
}

// commit brings the configuration into force. It fails only if the server was told
// to end meanwhile.
func (n *transition) commit(ctx context.Context) error {
	s := n.server
	// The upstreams come first, so that nobody is sent to one that has no servers
	// yet.
	var fresh []*upstream
	for name, u := range n.upstreams {
		if s.upstreams[name] == nil {
			fresh = append(fresh, u)
		}
		u.tls.Store(n.sessions[name])
		u.configure(n.config.Upstreams[name])
	}
	for _, u := range fresh {
		u.awaitNames(ctx)
	}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		for _, u := range fresh {
			u.close()
		}
		return ErrServerClosed
	}
	gone := difference(s.upstreams, n.upstreams)
	s.upstreams = n.upstreams
	s.maxConns, s.files = n.config.MaxConnections, n.config.RoomForConns()
	listeners := make(map[string]*listener, len(n.config.Listeners))
	for name, l := range n.config.Listeners {
		have := s.listeners[name]
		if have == nil {
			have = s.first.newListener(s, name)
		}
		have.configure(&l, n.policies[name])
		listeners[name] = have
	}
	s.listeners = listeners
	keep := make(map[*socket]bool)
	for name, sockets := range n.sockets {
		listeners[name].sockets = sockets
		for _, k := range sockets {
			keep[k] = true
			k.listener.Store(listeners[name])
			s.sockets[k] = struct{}{}
		}
	}
	for k := range s.sockets {
		if !keep[k] {
			k.close()
		}
	}
	s.config = n.config
	s.change()
	s.mu.Unlock()
	for _, u := range gone {
		u.close()
	}
	return nil
}

// accept lets clients come to the new sockets.
func (n *transition) accept() {
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	for _, k := range n.fresh {
		k.accept()
	}
}

func difference[V any](old, new map[string]V) []V {
	var gone []V
	for name, v := range old {
		if _, stays := new[name]; !stays {
			gone = append(gone, v)
		}
	}
	return gone
}

// openSockets finds or opens those that the configuration needs.
func (n *transition) openSockets(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(n.config.Listeners)) {
		conf := n.config.Listeners[name]
		for _, text := range conf.Address {
			key := socketKey{text, conf.Socket}
			sockets, err := n.server.find(name, key)
			if err == nil && len(sockets) == 0 {
				sockets, err = n.server.openSocket(ctx, name, key)
				n.fresh = append(n.fresh, sockets...)
			}
			if err != nil {
				return fmt.Errorf("listener %s: %w", name, err)
			}
			n.sockets[name] = append(n.sockets[name], sockets...)
		}
	}
	return nil
}

// openSocket opens what the server does not have yet, or takes it over.
func (s *Server) openSocket(ctx context.Context, name string, key socketKey) ([]*socket, error) {
	inherited, err := s.Inheritance.claim(name, key)
	for _, k := range inherited {
		k.server = s
	}
	if err != nil || len(inherited) > 0 {
		return inherited, err
	}
	addr, err := parseListenAddr(key.address)
	if err != nil {
		return nil, err // Check has parsed it before
	}
	listeners, err := s.listen(ctx, addr, key.options)
	sockets := make([]*socket, len(listeners))
	for i, ln := range listeners {
		sockets[i] = &socket{server: s, key: key, ln: ln, addr: ln.Addr()}
	}
	return sockets, err
}

func (s *Server) listen(ctx context.Context, addr Addr, o SocketOptions) ([]net.Listener, error) {
	if s.Listen != nil {
		return s.Listen(ctx, addr, o)
	}
	ln, err := Listen(ctx, addr, o)
	if err != nil {
		return nil, err
	}
	return []net.Listener{ln}, nil
}

// find returns the open sockets of that key: those of the listener of that name,
// or of one that loses them, since no two may have the same address. Options
// can't change while the socket is open.
func (s *Server) find(name string, key socketKey) ([]*socket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*socket
	for k := range s.sockets {
		if k.closed || k.key.address != key.address || strings.HasSuffix(key.address, ":0") && k.listener.Load().name != name {
			continue
		}
		if k.key != key {
			return nil, errOptions(key.address)
		}
		found = append(found, k)
	}
	return found, nil
}

func errOptions(address string) error {
	return fmt.Errorf("the socket options of %s can't change while it is open: want another address, or a restart", address)
}
