package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// A forwarder is a listener that the event loops accept from.
type forwarder struct {
	*splice.Forwarder
	addr net.Addr
	path string // of a unix socket's file
	once sync.Once
}

// forward hands ln to the event loops, which accept, dial and join: that is
// where the bytes are moved too. The error matches errors.ErrUnsupported where
// it can't be done: on other systems, for other listeners, and for a target
// given by a name, which has to be resolved anew for each connection.
func (s *Server) forward(ln net.Listener) (*forwarder, error) {
	targets, ok := resolved(s.Targets)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	f := &forwarder{addr: ln.Addr()}
	if bound, ok := ln.(boundUnix); ok {
		ln = bound.UnixListener
		if path := ln.Addr().String(); !strings.HasPrefix(path, "@") {
			f.path = path
		}
	}
	var err error
	f.Forwarder, err = splice.Forward(ln, splice.Forwarding{
		ConnectTimeout: s.connectTimeout(),
		Admit:          func() bool { return s.admit(f) },
		Accepted: func(session *splice.Session, client netip.AddrPort) ([]splice.Target, splice.Handler) {
			return targets, s.take(session, client)
		},
		Held: func(err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tell(unsaid{held: err, addr: f.addr})
		},
	}, s.Options...)
	return f, err
}

// resolved returns addrs as targets if all of them are addresses already.
func resolved(addrs []Addr) ([]splice.Target, bool) {
	targets := make([]splice.Target, len(addrs))
	for i, a := range addrs {
		var err error
		if a.Network == "unix" {
			targets[i], err = splice.NewUnixTarget(a.Address)
		} else {
			address := a.Address
			if strings.HasPrefix(address, ":") {
				address = "127.0.0.1" + address // as net.Dial has it
			}
			var ap netip.AddrPort
			if ap, err = netip.ParseAddrPort(address); err == nil {
				targets[i], err = splice.NewTarget(ap)
			}
		}
		if err != nil {
			return nil, false
		}
		targets[i].Name = a.String()
	}
	return targets, true
}

// Accept is never called: the event loops accept.
func (f *forwarder) Accept() (net.Conn, error) { return nil, net.ErrClosed }

func (f *forwarder) Addr() net.Addr { return f.addr }

// Close accepts no more, and does not wait for it.
func (f *forwarder) Close() error {
	f.once.Do(func() {
		f.Forwarder.Close()
		if f.path != "" {
			_ = os.Remove(f.path) // as net.UnixListener does
		}
	})
	return nil
}

// admit says whether there is room for another connection.
func (s *Server) admit(f *forwarder) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	if s.open < s.maxConns {
		return true
	}
	if !s.full {
		s.full = true
		s.tell(unsaid{held: ErrConnLimit, addr: f.addr})
	}
	return false
}

// take notes a new connection.
func (s *Server) take(session *splice.Session, client netip.AddrPort) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted++
	s.open++
	s.lastID++
	c := &conn{server: s, session: session, id: s.lastID, client: client}
	s.dialing.push(c)
	return c
}

// Connected is called when the session is joined.
func (c *conn) Connected(target int, local netip.AddrPort) {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	c.addr, c.local = &s.Targets[target], local
	s.dialing.remove(c)
	s.live.push(c)
	s.change() // for those who look for this one
	if s.aborting {
		go abort(c.session) // it waits for this loop; Close waits for its outcome
	}
}

// Failed is called when no target could be reached.
func (c *conn) Failed(err error) {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialing.remove(c)
	s.failed++
	client := "unix"
	if c.client.IsValid() {
		client = c.client.String()
	}
	s.tell(unsaid{conn: c, failed: &Failed{Client: client, Err: err, After: time.Since(c.session.Stats().Started)}})
}

// Ended is called when the joined session has ended.
func (c *conn) Ended(r splice.Result) { c.onEnd(r) }
