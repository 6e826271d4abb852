package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/spliced-io/spliced/proxy/internal/clienthello"
	"github.com/spliced-io/spliced/proxy/internal/detect"
	"github.com/spliced-io/spliced/proxy/internal/peek"
)

// look waits until the client has said what the routes want to know, without a
// goroutine on Linux, and has one serve it then.
func (s *Server) look(c *conn, client net.Conn, p *policy) {
	w := &watcher{server: s, conn: c, client: client, policy: p}
	guest := peek.Guest{Conn: client, Look: w.look, Done: w.done}
	if p.handshake > 0 {
		guest.Deadline = c.began.Add(p.handshake)
	}
	if err := s.guests.Wait(guest); err != nil {
		reset(client)
		c.fail(err)
	}
}

// A watcher finds out what a client wants.
type watcher struct {
	server *Server
	conn   *conn
	client net.Conn
	policy *policy
	facts  facts
}

// look is shown what the client has said so far.
func (w *watcher) look(b []byte) peek.Action {
	protocol, need := detect.Detect(b)
	if need > 0 {
		return peek.Action{Need: need}
	}
	w.facts.protocol = Protocol(protocol.String())
	if protocol != detect.TLS {
		return peek.Action{}
	}
	hello, need, err := clienthello.Parse(b)
	if need > 0 {
		return peek.Action{Need: need}
	}
	if err == nil { // else it is TLS without a name, for a server to complain about
		w.facts.sni, w.facts.alpn = hello.ServerName, hello.ALPN
	}
	return peek.Action{}
}

// done goes on with what is known at the end of the waiting. A client that waits
// for the server to speak, or says what nobody understands, takes the way of
// those; one that has only begun a handshake has no way.
func (w *watcher) done(o peek.Outcome) {
	if err := w.conclude(o); err != nil {
		reset(w.client)
		w.conn.fail(err)
		return
	}
	w.facts.source = w.conn.client.Addr()
	go w.server.serve(w.conn, w.client, w.facts, o.Read)
}

func (w *watcher) conclude(o peek.Outcome) error {
	switch {
	case o.Err == nil:
		return nil
	case errors.Is(o.Err, io.ErrUnexpectedEOF) && len(o.Bytes) == 0:
		return errors.New("the client has left without a word")
	case errors.Is(o.Err, io.ErrUnexpectedEOF), errors.Is(o.Err, os.ErrDeadlineExceeded):
		protocol := detect.AtLast(o.Bytes)
		if protocol == detect.TLS || w.facts.protocol == ProtocolTLS {
			return fmt.Errorf("%w: %d bytes of a TLS handshake", errHandshake, len(o.Bytes))
		}
		w.facts.protocol = Protocol(protocol.String())
		return nil
	case errors.Is(o.Err, net.ErrClosed):
		return ErrServerClosed
	default:
		return fmt.Errorf("look at the first bytes: %w", o.Err)
	}
}
