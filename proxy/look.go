package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/clienthello"
	"github.com/spliced-io/spliced/proxy/internal/detect"
	"github.com/spliced-io/spliced/proxy/internal/peek"
	"github.com/spliced-io/spliced/proxy/internal/proxyproto"
	"github.com/spliced-io/spliced/splice"
)

// looks says whether the listener has to know the connection's first bytes.
func (c *conn) looks(p *policy) bool { return p.looks || p.tls != nil || c.behind }

const (
	// hurriedShare is the share of the handshake timeout that a client has when
	// places run short. The oldest leave first, so that it decides only when more
	// come in that time than there are places: then to wait longer for the slow
	// is to keep everybody else out.
	hurriedShare = 100
	// spareShare and maxSpare are the share of the places, and how many at most,
	// that clients who say nothing don't get while others come: as many as come
	// until some have left. Without them accepting would stop each time.
	spareShare = 32
	maxSpare   = 256
	// easyShare is the share of these that has to be free beside them before nobody is
	// hurried any more.
	easyShare = 4
	// atOnce is how many have to leave at most before the next is accepted. The rest
	// need not be waited for.
	atOnce = 4
)

func spare(places int) int { return min(maxSpare, places/spareShare) }

// missing is how many have to leave when another comes and so many places are taken.
func missing(taken, places int) int { return max(0, taken+1+spare(places)-places) }

// roomy says that nobody has to, although some had to before.
func roomy(taken, places int) bool { return taken+spare(places)+spare(places)/easyShare < places }

// handshakeRecord is the first byte of TLS.
const handshakeRecord = 22

// look waits until the client has said what the routes want to know, without a
// goroutine on Linux, and has one serve it then.
func (s *Server) look(c *conn, client net.Conn, p *policy) {
	w := &watcher{server: s, conn: c, client: client, policy: p, header: c.behind}
	w.wait(peek.Guest{Conn: client, Look: w.look, Done: w.done})
}

// lookAt is look for a client that the event loops have accepted, and go on with.
func (s *Server) lookAt(c *conn, held *splice.Held, p *policy) {
	w := &watcher{server: s, conn: c, held: held, policy: p, header: c.behind}
	w.wait(peek.Guest{Held: held, Look: w.look, Done: w.done})
}

// A watcher finds out what a client wants.
type watcher struct {
	server *Server
	conn   *conn
	client net.Conn
	policy *policy
	// Of a client that the event loops have accepted, instead of the connection.
	held   *splice.Held
	facts  facts
	header bool  // a PROXY header is to come
	err    error // what is wrong with it
}

func (w *watcher) wait(g peek.Guest) {
	g.Of = w.conn.listener
	if w.policy.handshake > 0 {
		g.Deadline = w.conn.began.Add(w.policy.handshake)
		g.Hurried = w.conn.began.Add(w.policy.handshake / hurriedShare)
	}
	if err := w.server.guests.Wait(g); err != nil {
		w.fail(err)
	}
}

func (w *watcher) fail(err error) {
	if w.held != nil {
		w.held.Reset()
	} else {
		reset(w.client)
	}
	w.conn.fail(err)
}

// look is shown what the client has said so far.
func (w *watcher) look(b []byte) peek.Action {
	if w.header {
		return w.proxyHeader(b)
	}
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

// proxyHeader takes the header away.
func (w *watcher) proxyHeader(b []byte) peek.Action {
	h, size, need, err := proxyproto.Parse(b)
	switch {
	case err != nil:
		w.err = err
		return peek.Action{}
	case need > 0:
		return peek.Action{Need: need}
	}
	w.header = false
	if w.err = w.conn.introduce(&h, w.policy); w.err != nil || !w.policy.looks && w.policy.tls == nil {
		return peek.Action{Take: size}
	}
	return peek.Action{Take: size, Need: 1}
}

// introduce has the header say who the client is.
func (c *conn) introduce(h *proxyproto.Header, p *policy) error {
	s := c.listener.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.Source.IsValid() {
		c.client = h.Source
	}
	c.header = h
	return c.listener.enter(c, p)
}

// done goes on with what is known at the end of the waiting. A client that waits
// for the server to speak, or says what nobody understands, takes the way of
// those; one that has only begun a handshake has no way.
func (w *watcher) done(o peek.Outcome) {
	if err := w.conclude(o); err != nil {
		w.fail(err)
		return
	}
	w.facts.source = w.conn.client.Addr()
	if w.held != nil {
		w.conn.sni = w.facts.sni
		w.conn.goOn(w.held, w.facts)
		return
	}
	go w.server.serve(w.conn, w.client, w.facts, o.Read)
}

// late says why the waiting has ended without a word: the time is over, or others needed the
// place before.
func (w *watcher) late() error {
	if time.Since(w.conn.began) < w.policy.handshake {
		return errEvicted
	}
	return errHandshake
}

func (w *watcher) conclude(o peek.Outcome) error {
	switch {
	case w.err != nil:
		return w.err
	case o.Err == nil:
		return nil
	case w.header && errors.Is(o.Err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %d bytes of a PROXY header", w.late(), len(o.Bytes))
	case w.header && errors.Is(o.Err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w with %d bytes of a PROXY header", splice.ErrClientLeft, len(o.Bytes))
	case errors.Is(o.Err, io.ErrUnexpectedEOF) && len(o.Bytes) == 0:
		return errLeftBefore
	case errors.Is(o.Err, io.ErrUnexpectedEOF), errors.Is(o.Err, os.ErrDeadlineExceeded):
		protocol := detect.AtLast(o.Bytes)
		if protocol == detect.TLS || bytes.HasPrefix(o.Bytes, []byte{handshakeRecord}) || w.facts.protocol == ProtocolTLS {
			why, what := w.late(), ":"
			if errors.Is(o.Err, io.ErrUnexpectedEOF) {
				why, what = splice.ErrClientLeft, " with"
			}
			return fmt.Errorf("%w%s %d bytes of a TLS handshake", why, what, len(o.Bytes))
		}
		w.facts.protocol = Protocol(protocol.String())
		return nil
	case errors.Is(o.Err, net.ErrClosed):
		return ErrServerClosed
	case clientGone(o.Err):
		return fmt.Errorf("%w: %w", splice.ErrClientLeft, o.Err)
	default:
		return fmt.Errorf("look at the first bytes: %w", o.Err)
	}
}
