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

// accept hands each client of ln to a goroutine, which dials, joins and is
// gone.
func (s *Server) accept(ln net.Listener) error {
	var pause time.Duration
	for {
		if !s.awaitRoom(ln) {
			return ErrServerClosed
		}
		client, err := ln.Accept()
		if err == nil {
			pause = 0
			s.mu.Lock()
			s.accepted++
			s.open++
			s.mu.Unlock()
			go s.serve(client, time.Now())
			continue
		}
		// Whatever else accept answers belongs to one client (the network
		// errors that accept(2) lists) or passes: descriptors, memory.
		if errors.Is(err, net.ErrClosed) {
			return ErrServerClosed
		}
		s.held(ln.Addr(), cause(err))
		pause = min(max(2*pause, minPause), maxPause)
		if !s.sleep(pause) {
			return ErrServerClosed
		}
	}
}

// awaitRoom returns when another client may be accepted: false if none ever
// will.
func (s *Server) awaitRoom(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for said := false; ; {
		if s.closing {
			return false
		}
		full := s.open >= s.maxConns
		if !full && s.starved == 0 {
			return true
		}
		if full && !said {
			said = true
			s.mu.Unlock()
			s.held(ln.Addr(), ErrConnLimit)
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

// sleep lasts d, and returns false at once when the server is closed.
func (s *Server) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closing {
		if s.wait(nil, timer.C) != nil {
			return !s.closing
		}
	}
	return false
}
