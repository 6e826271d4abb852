package proxy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/tlsfiles"
	"github.com/spliced-io/spliced/splice"
)

func (l *ListenerTLS) files() tlsfiles.ServerFiles {
	f := tlsfiles.ServerFiles{MinVersion: l.MinVersion.number(), ALPN: l.ALPN, ClientAuthorities: l.ClientCA}
	for _, p := range l.Certificates {
		f.Pairs = append(f.Pairs, tlsfiles.Pair(p))
	}
	switch l.ClientCertificate {
	case "optional":
		f.ClientCertificate = tlsfiles.OptionalCertificate
	case "required":
		f.ClientCertificate = tlsfiles.RequiredCertificate
	}
	return f
}

func (u *UpstreamTLS) files() tlsfiles.ClientFiles {
	return tlsfiles.ClientFiles{
		ServerName: u.ServerName, Authorities: u.CA, NoVerify: u.NoVerify,
		Pair: tlsfiles.Pair{Certificate: u.Certificate, Key: u.Key}, MinVersion: u.MinVersion.number(), ALPN: u.ALPN,
	}
}

// terminate makes the client's TLS session end here, and says what it knows of
// it.
func (c *conn) terminate(ctx context.Context, client net.Conn, p *policy, f *facts) (net.Conn, error) {
	if f.protocol != ProtocolTLS {
		return nil, fmt.Errorf("%w: it does not speak TLS", errClientTLS)
	}
	if p.handshake > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, c.began.Add(p.handshake))
		defer cancel()
	}
	session := tls.Server(rewound(client, c.first), p.tls.Config())
	switch err := handshake(ctx, client, session); {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("TLS with the client: %w", errHandshake)
	case clientGone(err):
		return nil, fmt.Errorf("TLS with the client: %w: %w", splice.ErrClientLeft, cause(err))
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errClientTLS, err)
	}
	c.first = nil
	state := session.ConnectionState()
	f.sni, f.alpn = state.ServerName, nil
	if state.NegotiatedProtocol != "" {
		f.alpn = []string{state.NegotiatedProtocol}
	}
	c.tls = &state
	return session, nil
}

// handshake is session.HandshakeContext, but leaves conn, which is below it, open
// when ctx ends: it is to be reset, and not closed as after a clean end.
func handshake(ctx context.Context, conn net.Conn, session *tls.Conn) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := session.Handshake()
	if !stop() {
		err = ctx.Err()
	}
	return err
}

// originate makes a TLS session with a server.
func (m *member) originate(ctx context.Context, c *conn, server net.Conn, client *tlsfiles.Client) (net.Conn, error) {
	host, _, err := net.SplitHostPort(hostport(c.nameOf(m)))
	if err != nil {
		host = ""
	}
	config := client.Config(host)
	if config.NextProtos == nil && c.tls != nil && c.tls.NegotiatedProtocol != "" {
		config.NextProtos = []string{c.tls.NegotiatedProtocol}
	}
	session := tls.Client(server, config)
	switch err := handshake(ctx, server, session); {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("TLS with %s: %w", c.nameOf(m), err)
	case err != nil:
		return nil, fmt.Errorf("%w %s: %w", errServerTLS, c.nameOf(m), err)
	}
	return session, nil
}

// hostport is the address as configured, with the name that it may have, of the name
// of a server.
func hostport(name string) string {
	configured, _, _ := strings.Cut(name, "=") // name=address: see resolved
	return configured
}

// rewound is c with bytes before what it has to give. Without any it is c
// itself.
func rewound(c net.Conn, first []byte) net.Conn {
	if len(first) == 0 {
		return c
	}
	return &rewoundConn{c, io.MultiReader(bytes.NewReader(first), c)}
}

type rewoundConn struct {
	net.Conn
	r io.Reader
}

func (c *rewoundConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// fileInterval is how often files are looked at for changes.
const fileInterval = 10 * time.Second

// watchFiles has certificates read again that have changed.
func (s *Server) watchFiles(ctx context.Context) {
	ticker := time.NewTicker(cmp.Or(s.fileInterval, fileInterval))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if !doUntil(ctx, s.RefreshFiles) {
				return
			}
		}
	}
}

// doUntil calls f, and waits for it until ctx ends. What it reads may be on a disk that does not answer:
// nothing but its end, or that of the process, brings it back from there.
func doUntil(ctx context.Context, f func()) (done bool) {
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		f()
	}()
	select {
	case <-returned:
		return true
	case <-ctx.Done():
		return false
	}
}

// RefreshFiles reads certificates and keys again whose files have changed, which
// the server does by itself every 10 seconds. [Hooks.Changed] tells the outcome;
// what can't be read does not take the place of what was.
func (s *Server) RefreshFiles() {
	s.mu.Lock()
	listeners, upstreams := s.sortedListeners(), s.sortedUpstreams()
	s.mu.Unlock()
	for _, l := range listeners {
		if t := l.policy.Load().tls; t != nil {
			s.refreshed(t, Change{Listener: l.name})
		}
	}
	for _, u := range upstreams {
		if t := u.tls.Load(); t != nil {
			s.refreshed(t, Change{Upstream: u.name})
		}
	}
}

func (s *Server) refreshed(files interface{ Refresh() (bool, error) }, c Change) {
	changed, err := files.Refresh()
	if !changed || s.Hooks.Changed == nil {
		return
	}
	if c.What, c.Err = FilesRead, err; err != nil {
		c.What = FilesRefused
	}
	s.Hooks.Changed(c)
}
