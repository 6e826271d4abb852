package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// A vigil is kept while a goroutine looks for a client's server.
type vigil struct {
	ctx     context.Context // ends with the server, with the client's lifetime, and when the client has left
	until   time.Time       // the end of its lifetime; zero: none
	cancel  []func()
	dismiss func() // nobody watches the client any more: it may be joined
}

// keepVigil begins one, which is to be ended.
func (s *Server) keepVigil(c *conn, client net.Conn, life time.Duration) *vigil {
	v := new(vigil)
	ctx, leave := context.WithCancelCause(s.ctx)
	v.ctx, v.cancel = ctx, append(v.cancel, func() { leave(nil) })
	if life > 0 {
		v.until = c.began.Add(life)
		late, cancel := context.WithDeadlineCause(ctx, v.until, splice.ErrLifetime)
		v.ctx, v.cancel = late, append(v.cancel, cancel)
	}
	// What was read of it already was something to say.
	_, encrypted := client.(*tls.Conn)
	v.dismiss = watchClient(below(client), encrypted || len(c.first) > 0, func() { leave(splice.ErrClientLeft) })
	return v
}

func (v *vigil) end() {
	v.dismiss()
	for _, cancel := range v.cancel {
		cancel()
	}
}

// over says why there is nobody to look for a server for any more.
func (v *vigil) over() error {
	err := context.Cause(v.ctx)
	if err == nil && !v.until.IsZero() && !time.Now().Before(v.until) {
		err = splice.ErrLifetime // a dial of package net has a timer of its own for it, which was the first
	}
	return err
}

// rest is what is left of the lifetime, 0 for no limit.
func (v *vigil) rest() time.Duration {
	if v.until.IsZero() {
		return 0
	}
	return max(1, time.Until(v.until))
}

// below is the connection that carries a TLS session, or c itself.
func below(c net.Conn) net.Conn {
	if session, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = session.NetConn()
	}
	if r, ok := c.(*rewoundConn); ok {
		c = r.Conn
	}
	return c
}
