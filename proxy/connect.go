package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// serve joins a client, of which first was read already, to a server. Only the
// session is left of it then.
func (s *Server) serve(c *conn, client net.Conn, f facts, first []byte) {
	c.first = first
	var err error
	p := c.listener.policy.Load()
	if p.tls != nil {
		var session net.Conn
		if session, err = c.terminate(s.ctx, client, p, &f); err == nil {
			client = session
		}
	}
	if c.sni = f.sni; err == nil {
		v := s.keepVigil(c, client, p.lifetime())
		err = s.connect(v, c, client, f)
		v.end()
	}
	if err == nil {
		return
	}
	// A clean end would look like an answer without content.
	reset(client)
	c.fail(err)
}

// connect finds the way, dials and joins.
func (s *Server) connect(v *vigil, c *conn, client net.Conn, f facts) error {
	p := c.listener.policy.Load()
	r := p.match(f)
	if r == nil {
		return f.noRoute()
	}
	c.route = r
	u := r.upstream
	if u == nil {
		return errRejected
	}
	if r.original {
		if err := c.aimBelow(client); err != nil {
			return err
		}
	}
	members, err := u.choose(v.ctx, c.key())
	if err != nil {
		return err
	}
	var errs []error
	for i := 0; i < len(members); {
		var same []*member // server, the first of which has been entered
		for ; i < len(members) && (same == nil || members[i].rivals(members[i-1])); i++ {
			if i == 0 || members[i].enter() {
				same = append(same, members[i])
			}
		}
		if same == nil {
			continue
		}
		err := s.try(v, c, client, same)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		if v.over() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// try dials a server at its addresses, and joins the client to it. It leaves all of
// them but the one that the client is joined to.
func (s *Server) try(v *vigil, c *conn, client net.Conn, members []*member) error {
	timeout := members[0].upstream.connectTimeout()
	deadline := time.Now().Add(timeout)
	var server net.Conn
	var joined *member
	defer func() {
		for _, m := range members {
			if m != joined {
				m.leave()
			}
		}
	}()
	var m *member
	var tried []error
	err := s.insist(v, client, deadline, func() (err error) {
		server, m, tried, err = s.dial(v.ctx, c, client, members, timeout)
		return err
	})
	over := v.over()
	for i, err := range tried {
		if err != nil && !shortage(err) && !errors.Is(err, errClientSource) && (over == nil || server != nil) {
			members[i].connectFailed(err)
		}
	}
	if err != nil {
		if over != nil {
			return over
		}
		return err
	}
	m.connected()
	v.dismiss()
	err = s.insist(v, client, deadline, func() error { return s.join(v, c, client, server, m) })
	if err != nil {
		reset(server)
		var side *splice.Error
		if errors.As(err, &side) && side.Side == "a" && errors.Is(err, syscall.ENOTCONN) {
			return fmt.Errorf("%w: %w", splice.ErrClientLeft, err)
		}
		return fmt.Errorf("join %s: %w", c.nameOf(m), err)
	}
	joined = m
	return nil
}

func (u *upstream) connectTimeout() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Duration(u.config.ConnectTimeout)
}

// insist tries again where descriptors are lacking, until the deadline. So
// long nobody is accepted: the client that is here is served before the next.
func (s *Server) insist(v *vigil, client net.Conn, deadline time.Time, try func() error) error {
	err := try()
	if !shortage(err) {
		return err
	}
	s.held(client.LocalAddr(), err)
	s.starve(+1)
	defer s.starve(-1)
	for pause := minPause; shortage(err) && time.Now().Add(pause).Before(deadline); pause = min(2*pause, maxPause/8) {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-v.ctx.Done():
			timer.Stop()
			return err
		}
		err = try()
	}
	return err
}

func (s *Server) starve(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starved += n
	s.change()
}

// dial connects to one of the members, which are the same server, and sends what comes
// before the client's bytes. tried has why others, or all, were not connected to.
func (s *Server) dial(ctx context.Context, c *conn, client net.Conn, members []*member, timeout time.Duration) (_ net.Conn, _ *member, tried []error, _ error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	server, won, tried := s.race(ctx, c, members, timeout)
	if server == nil {
		return nil, nil, tried, errors.Join(tried...)
	}
	m := members[won]
	_, version := m.upstream.manner()
	session, err := s.greet(ctx, c, client, m, server, version)
	if err != nil {
		reset(server)
		tried[won] = err
		return nil, nil, tried, err
	}
	return session, m, tried, nil
}

// greet sends what comes before the client's bytes.
func (s *Server) greet(ctx context.Context, c *conn, client net.Conn, m *member, server net.Conn, version ProxyVersion) (net.Conn, error) {
	if version != "" {
		header, err := c.proxyHeader(version, client)
		if err == nil {
			// It fits the send queue of a new connection: there is nothing to wait for.
			_, err = server.Write(header)
		}
		if err != nil {
			return nil, fmt.Errorf("send a PROXY header to %s: %w", c.nameOf(m), cause(err))
		}
	}
	if t := m.upstream.tls.Load(); t != nil {
		return m.originate(ctx, c, server, t)
	}
	return server, nil
}

// manner is how connections to the servers are made.
func (u *upstream) manner() (source Source, version ProxyVersion) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.config.SourceAddress, u.config.SendProxy
}

// join starts the session, which owns both connections from then on.
func (s *Server) join(v *vigil, c *conn, client, server net.Conn, m *member) error {
	s.mu.Lock()
	if s.aborting {
		s.mu.Unlock()
		return ErrServerClosed
	}
	c.member, c.target = m, addrPort(server.RemoteAddr())
	s.departs(c, m.dial.Network == original, addrPort(server.LocalAddr()))
	s.live.push(c)
	s.mu.Unlock()

	if _, ok := client.(syscall.Conn); !ok { // the event loops can't
		setTCP(client, c.route.sockets[0])
	}
	if _, ok := server.(syscall.Conn); !ok {
		setTCP(server, c.route.sockets[1])
	}
	options := []splice.Option{splice.Follow(c.route.plan), splice.Own(), splice.OnEnd(c.onEnd), splice.OnSockets(c.Sockets), splice.Note(c.Note)}
	if life := v.rest(); life > 0 {
		options = append(options, splice.MaxLifetime(life))
	}
	if len(c.first) > 0 {
		options = append(options, splice.Prefetched(c.first, nil))
	}
	session, err := splice.Start(client, server, options...)

	s.mu.Lock()
	if err != nil {
		s.live.remove(c)
		s.arrived(c)
		c.member = nil
		s.mu.Unlock()
		return err
	}
	c.session, c.first = session, nil
	s.joined(c)
	aborted := s.aborting
	s.change() // for those who look for this one
	s.mu.Unlock()
	if aborted {
		session.Abort()
	}
	return nil
}

// shortage reports whether err says that descriptors or memory for them are
// lacking, which passes, and is nobody's fault.
func shortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// reset closes a connection so that its peer learns that it failed.
func reset(c net.Conn) {
	c = below(c) // without the close_notify of TLS, which is a clean end
	if tc, ok := c.(*net.TCPConn); ok {
		_ = tc.SetLinger(0)
	}
	_ = c.Close()
}
