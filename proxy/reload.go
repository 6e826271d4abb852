package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/spliced-io/spliced/proxy/internal/setting"
	"github.com/spliced-io/spliced/proxy/internal/tlsfiles"
)

// Reload brings another configuration into force. It is checked whole, and its
// new sockets are opened, before anything changes: after an error everything is
// as it was. What is the same in both is not touched: sockets, connections,
// the health of servers, counters. A listener or upstream is the same if its
// name is, a server if its address is.
func (s *Server) Reload(ctx context.Context, c Config) error {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	if err := s.running(); err != nil {
		return err
	}
	opened, err := s.apply(ctx, c)
	if err != nil {
		return err
	}
	return s.serveSockets(opened)
}

// running says why a server can't be changed or handed over: it is not started, or ends.
func (s *Server) running() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.upstreams == nil:
		return errNotStarted
	case s.closing:
		return ErrServerClosed
	}
	return nil
}

// CurrentConfig returns the configuration in force, defaults filled in.
func (s *Server) CurrentConfig() Config {
	s.configuring.Lock()
	defer s.configuring.Unlock()
	return s.config
}

// apply brings c into force, but for serving the sockets that it returns.
// s.configuring is held.
func (s *Server) apply(ctx context.Context, c Config) (opened map[string][]*socket, err error) {
	if problems := c.Check(); problems != nil {
		return nil, problems
	}
	setting.Fill(&c)

	// First whatever can fail.
	upstreams := make(map[string]*upstream, len(c.Upstreams))
	for name := range c.Upstreams {
		if u := s.upstreams[name]; u != nil {
			upstreams[name] = u
		} else {
			upstreams[name] = newUpstream(s, name)
		}
	}
	sessions := make(map[string]*tlsfiles.Client)
	for name, u := range c.Upstreams {
		if u.TLS == nil {
			continue
		}
		t, err := tlsfiles.NewClient(u.TLS.files())
		if err != nil {
			return nil, fmt.Errorf("upstream %s: tls: %w", name, err)
		}
		sessions[name] = t
	}
	policies := make(map[string]*policy, len(c.Listeners))
	for name, l := range c.Listeners {
		var before *policy
		if have := s.listeners[name]; have != nil {
			before = have.policy.Load()
		}
		p, err := newPolicy(&l, before, c.Upstreams, upstreams, s.Wire)
		if err != nil {
			return nil, fmt.Errorf("listener %s: %w", name, err)
		}
		policies[name] = p
	}
	if opened, err = s.openSockets(ctx, &c); err != nil {
		return nil, err
	}

	// From here on nothing fails. The new upstreams come first, so that nobody is
	// sent to one that has no servers yet.
	var fresh []*upstream
	for name, u := range upstreams {
		conf := c.Upstreams[name]
		if s.upstreams[name] == nil {
			fresh = append(fresh, u)
		}
		u.tls.Store(sessions[name])
		u.configure(conf)
	}
	for _, u := range fresh {
		u.awaitNames(ctx)
	}
	s.mu.Lock()
	goneUpstreams := difference(s.upstreams, upstreams)
	s.upstreams = upstreams
	s.maxConns = RoomForConns()
	if c.MaxConnections > 0 {
		s.maxConns = min(s.maxConns, c.MaxConnections)
	}
	listeners := make(map[string]*listener, len(c.Listeners))
	for name, l := range c.Listeners {
		have := s.listeners[name]
		if have == nil {
			have = &listener{server: s, name: name}
		}
		have.configure(&l, policies[name])
		listeners[name] = have
	}
	s.listeners = listeners
	keep := make(map[*socket]bool)
	for name, sockets := range opened {
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
	s.change()
	s.mu.Unlock()
	for _, u := range goneUpstreams {
		u.close()
	}
	s.config = c
	return opened, nil
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

// openSockets opens those that c needs and that are not there yet, by the names
// of listeners. After an error none is left open.
func (s *Server) openSockets(ctx context.Context, c *Config) (map[string][]*socket, error) {
	opened := make(map[string][]*socket)
	discard := func() {
		for _, sockets := range opened {
			for _, k := range sockets {
				if !k.served {
					_ = k.ln.Close()
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Listeners)) {
		conf := c.Listeners[name]
		for _, text := range conf.Address {
			key := socketKey{text, conf.Socket}
			have, err := s.find(name, key)
			if err == nil && have == nil {
				have, err = s.Inheritance.claim(name, key)
			}
			if err != nil {
				discard()
				return nil, fmt.Errorf("listener %s: %w", name, err)
			}
			if len(have) > 0 {
				opened[name] = append(opened[name], have...)
				continue
			}
			addr, err := parseListenAddr(text)
			if err != nil {
				discard()
				return nil, err // Check has parsed it before
			}
			listeners, err := s.listen(ctx, addr, conf.Socket)
			if err != nil {
				discard()
				return nil, fmt.Errorf("listener %s: %w", name, err)
			}
			for _, ln := range listeners {
				opened[name] = append(opened[name], &socket{key: key, ln: ln, addr: ln.Addr()})
			}
		}
	}
	return opened, nil
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

// serveSockets begins to accept from those that were opened.
func (s *Server) serveSockets(opened map[string][]*socket) error {
	var errs []error
	for _, sockets := range opened {
		for _, k := range sockets {
			if !k.served {
				if err := k.serve(); err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}
