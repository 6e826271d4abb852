package portable

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A side is one of a session's two connections.
type side struct {
	conn   io.ReadWriteCloser
	broken atomic.Pointer[error] // the first error that broke it: later ones, a clean end too, are its echo
	finned atomic.Bool           // a FIN was sent to it
	once   sync.Once             // guards Close
}

// past is a deadline that is over.
func past() time.Time { return time.Unix(1, 0) }

// fail notes that the connection is broken.
func (s *side) fail(err error) { s.broken.CompareAndSwap(nil, &err) }

// failure returns the error that broke the connection, or nil.
func (s *side) failure() error {
	if p := s.broken.Load(); p != nil {
		return *p
	}
	return nil
}

// interruptRead ends a waiting Read and all later ones.
func (s *side) interruptRead() {
	if c, ok := s.conn.(interface{ SetReadDeadline(time.Time) error }); ok && c.SetReadDeadline(past()) == nil {
		return
	}
	s.close()
}

// interrupt ends whatever waits for the connection, and all that would later.
// Not the write deadline alone: crypto/tls reads in order to write (handshake).
func (s *side) interrupt() {
	if c, ok := s.conn.(interface{ SetDeadline(time.Time) error }); ok && c.SetDeadline(past()) == nil {
		return
	}
	s.close()
}

func (s *side) clearDeadlines() {
	if c, ok := s.conn.(interface{ SetDeadline(time.Time) error }); ok {
		_ = c.SetDeadline(time.Time{}) // an error: it has none
	}
}

func (s *side) canCloseWrite() bool {
	_, ok := s.conn.(interface{ CloseWrite() error })
	return ok
}

// closeWrite forwards a FIN if the type can.
func (s *side) closeWrite() error {
	c, ok := s.conn.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	// tls.Conn refuses CloseWrite before its handshake, which nothing may have
	// started if no byte was written.
	if h, ok := s.conn.(interface{ Handshake() error }); ok {
		if err := h.Handshake(); err != nil {
			return err
		}
	}
	s.finned.Store(true)
	return c.CloseWrite()
}

func (s *side) close() {
	s.once.Do(func() {
		_ = s.conn.Close()
	})
}

// transport is what carries the side: itself, or what is below a tls.Conn.
func (s *side) transport() io.Closer {
	if c, ok := s.conn.(interface{ NetConn() net.Conn }); ok {
		return c.NetConn()
	}
	return s.conn
}

// unacknowledged returns the bytes that its peer's kernel has not got yet, 0
// where that is unknown.
func (s *side) unacknowledged() int {
	if c, ok := s.transport().(*net.TCPConn); ok {
		return unacknowledged(c)
	}
	return 0
}

// reset sends a RST if the type can, and closes the side.
func (s *side) reset() {
	s.once.Do(func() {
		t := s.transport()
		if c, ok := t.(interface{ SetLinger(int) error }); ok {
			_ = c.SetLinger(0)
		}
		_ = t.Close()
	})
}
