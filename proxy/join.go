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

// serve joins a client to a target. Only the session is left of it then.
func (s *Server) serve(client net.Conn, since time.Time) {
	err := s.connect(client, since.Add(s.connectTimeout()))
	if err == nil {
		return
	}
	// A clean end would look like an answer without content.
	reset(client)
	if s.Hooks.Failed != nil {
		s.Hooks.Failed(Failed{Client: addrString(client.RemoteAddr()), Err: err, After: time.Since(since)})
	}
	s.mu.Lock()
	s.failed++
	s.open--
	s.change()
	s.mu.Unlock()
}

func (s *Server) connectTimeout() time.Duration {
	if s.ConnectTimeout > 0 {
		return s.ConnectTimeout
	}
	return DefaultConnectTimeout
}

// connect dials and joins.
func (s *Server) connect(client net.Conn, deadline time.Time) error {
	var server net.Conn
	var addr *Addr
	err := s.insist(client, deadline, func() (err error) {
		server, addr, err = s.dial()
		return err
	})
	if err != nil {
		return err
	}
	err = s.insist(client, deadline, func() error { return s.join(client, server, addr) })
	if err != nil {
		reset(server)
		return fmt.Errorf("join %s: %w", addr, err)
	}
	return nil
}

// insist tries again where descriptors are lacking, until the deadline. So
// long nobody is accepted: the client that is here is served before the next.
func (s *Server) insist(client net.Conn, deadline time.Time, try func() error) error {
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
		case <-s.ctx.Done():
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

// dial tries the targets in turn.
func (s *Server) dial() (net.Conn, *Addr, error) {
	var errs []error
	for i := range s.Targets {
		addr := &s.Targets[i]
		// One target's timeout must not be cut short by another's.
		ctx, cancel := context.WithTimeout(s.ctx, s.connectTimeout())
		d := net.Dialer{KeepAliveConfig: keepAlive}
		conn, err := d.DialContext(ctx, addr.Network, addr.Address)
		cancel()
		if err == nil {
			return conn, addr, nil
		}
		errs = append(errs, fmt.Errorf("connect to %s: %w", addr, cause(err)))
		if s.ctx.Err() != nil {
			break
		}
	}
	return nil, nil, errors.Join(errs...)
}

// join starts the session, which owns both connections from then on.
func (s *Server) join(client, server net.Conn, addr *Addr) error {
	c := &conn{
		server: s,
		addr:   addr,
		client: addrPort(client.RemoteAddr()),
		target: addrPort(server.RemoteAddr()),
		local:  addrPort(server.LocalAddr()),
	}
	s.mu.Lock()
	if s.aborting {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.lastID++
	c.id = s.lastID
	s.live.push(c)
	s.mu.Unlock()

	options := make([]splice.Option, 0, len(s.Options)+2)
	options = append(append(options, s.Options...), splice.Own(), splice.OnEnd(c.onEnd))
	session, err := splice.Start(client, server, options...)

	s.mu.Lock()
	if err != nil {
		s.live.remove(c)
		s.mu.Unlock()
		return err
	}
	c.session = session
	aborted := s.aborting
	s.change() // for those who look for this one
	s.mu.Unlock()
	if aborted {
		abort(session)
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
	if tc, ok := c.(*net.TCPConn); ok {
		_ = tc.SetLinger(0)
	}
	_ = c.Close()
}
