//go:build !linux

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// A Succession is what is left to do of a server whose listeners another process
// has.
type Succession struct{}

// HandOver needs Linux: its error matches [errors.ErrUnsupported].
func (s *Server) HandOver(context.Context, *net.UnixConn, Baggage, string) (*Succession, error) {
	return nil, fmt.Errorf("hand over: it needs Linux: %w", errors.ErrUnsupported)
}

// Move does nothing here.
func (m *Succession) Move(context.Context) (int, error) { return 0, errors.ErrUnsupported }

// Flows are none here.
func (m *Succession) Flows() int { return 0 }

// Inherit needs Linux.
func Inherit(context.Context, *net.UnixConn) (*Inheritance, error) {
	return nil, fmt.Errorf("take over: it needs Linux: %w", errors.ErrUnsupported)
}

// Listener has nothing to give here.
func (i *Inheritance) Listener(string, string) (net.Listener, error) { return nil, nil }

// Refuse does nothing here.
func (i *Inheritance) Refuse(error) {}

func (i *Inheritance) claim(string, socketKey) ([]*socket, error) { return nil, nil }

func (s *Server) succeed(context.Context) error { return nil }

func (p parted) keep() { p.conn.conclude(p.result) } // never called
