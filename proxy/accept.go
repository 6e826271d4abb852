package proxy

import (
	"errors"
	"net"
	"time"
)

// The pauses after a failed accept or a lack of descriptors.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// acceptAll hands each client to a goroutine, which dials, joins and is gone. It
// returns when the socket was closed.
func (k *socket) acceptAll() {
	s := k.server
	defer k.ln.Close()
	var pause time.Duration
	for {
		if !s.awaitRoom(k) {
			return
		}
		client, err := k.ln.Accept()
		if err == nil {
			pause = 0
			l := k.listener.Load()
			p := l.policy.Load()
			c, err := s.take(l, p, addrPort(client.RemoteAddr()))
			if err != nil {
				reset(client)
				c.fail(err)
				continue
			}
			if c.looks(p) {
				s.look(c, client, p)
			} else {
				go s.serve(c, client, facts{source: c.client.Addr()}, nil)
			}
			continue
		}
		// Whatever else accept answers belongs to one client (the network
		// errors that accept(2) lists) or passes: descriptors, memory.
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s.held(k.addr, cause(err))
		pause = min(max(2*pause, minPause), maxPause)
		if !s.sleep(k, pause) {
			return
		}
	}
}

// awaitRoom returns when another client may be accepted: false if none ever
// will.
func (s *Server) awaitRoom(k *socket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for said := false; ; {
		if k.closed {
			return false
		}
		s.makeRoom(k.listener.Load())
		full := !s.room(k.listener.Load())
		if !full && s.starved == 0 {
			return true
		}
		if full && !said {
			said = true
			s.mu.Unlock()
			s.held(k.addr, ErrConnLimit)
			s.mu.Lock()
			continue
		}
		_ = s.wait(nil, nil)
	}
}

func (s *Server) held(addr net.Addr, err error) {
	if s.Hooks.Held != nil {
		s.Hooks.Held(Held{Addr: addr, Err: err})
	}
}

// sleep lasts d, and returns false at once when the socket is closed.
func (s *Server) sleep(k *socket, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !k.closed {
		if s.wait(nil, timer.C) != nil {
			return !k.closed
		}
	}
	return false
}
