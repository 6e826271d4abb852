package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// maxAnswer is how much of a server's answer a check reads.
const maxAnswer = 64 << 10

// A probe is a check of one server.
type probe struct {
	config       Health
	to           Addr
	send, expect []byte
	status       [][2]int
}

// newProbe understands a configuration that was checked before.
func newProbe(c Health, to Addr) *probe {
	p := &probe{config: c, to: to}
	p.send, _ = unescape(c.Send)
	p.expect, _ = unescape(c.Expect)
	if c.Port > 0 && to.Network == "tcp" {
		host, _, _ := net.SplitHostPort(to.Address)
		p.to.Address = net.JoinHostPort(host, strconv.Itoa(c.Port))
	}
	if h := c.HTTP; h != nil {
		host := c.ServerName
		if host == "" {
			host = "localhost"
			if to.Network == "tcp" {
				host = p.to.Address
			}
		}
		p.send = fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: spliced\r\nConnection: close\r\n\r\n", h.Method, h.Path, host)
		for _, s := range h.Status {
			r, _ := parseStatus(s)
			p.status = append(p.status, r)
		}
	}
	return p
}

// run makes the check once. Nil is a server that works.
func (p *probe) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.config.Timeout))
	defer cancel()
	conn, err := dialClear(ctx, &net.Dialer{Control: splice.DialControl}, p.to)
	if err != nil {
		if late(err) || ctx.Err() != nil {
			return fmt.Errorf("connect: %w", errNoAnswer)
		}
		return fmt.Errorf("connect: %w", cause(err))
	}
	// A check leaves no TIME_WAIT behind, nor waits for the server to close.
	defer reset(conn)
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = p.talk(ctx, conn)
	if late(err) {
		return errNoAnswer
	}
	return err
}

// late reports whether time was over. A dial has a timer of its own, which may be
// before that of its context.
func late(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

func (p *probe) talk(ctx context.Context, conn net.Conn) error {
	if p.config.TLS {
		client := tls.Client(conn, &tls.Config{ServerName: p.config.ServerName, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}) //nolint:gosec // asks whether the server answers, not who it is
		if err := client.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS handshake: %w", err)
		}
		conn = client
	}
	if len(p.send) > 0 {
		if _, err := conn.Write(p.send); err != nil {
			return fmt.Errorf("send: %w", cause(err))
		}
	}
	if p.config.HTTP != nil {
		return p.readHTTP(conn)
	}
	return p.await(io.LimitReader(conn, maxAnswer))
}

// await reads until what is expected has come, if anything is.
func (p *probe) await(answer io.Reader) error {
	if len(p.expect) == 0 {
		return nil
	}
	var got []byte
	b := make([]byte, 4096)
	for {
		n, err := answer.Read(b)
		got = append(got, b[:n]...)
		if bytes.Contains(got, p.expect) {
			return nil
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("receive: %w", cause(err))
		}
	}
	return fmt.Errorf("the answer %.60q does not contain %q", got, p.expect)
}

func (p *probe) readHTTP(conn net.Conn) error {
	r := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	line, err := r.ReadString('\n')
	if err != nil && line == "" {
		return fmt.Errorf("receive: %w", cause(err))
	}
	fields := strings.Fields(line)
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "HTTP/1.") {
		return fmt.Errorf("the answer %.60q is not HTTP/1", line)
	}
	code, err := strconv.Atoi(fields[1])
	if err != nil {
		return fmt.Errorf("the answer %.60q has no status", line)
	}
	for _, s := range p.status {
		if s[0] <= code && code <= s[1] {
			return p.await(r)
		}
	}
	return fmt.Errorf("status %d, want %s", code, strings.Join(p.config.HTTP.Status, ", "))
}

// parseStatus reads 200 or 200-399.
func parseStatus(s string) ([2]int, error) {
	low, high, is := strings.Cut(s, "-")
	if !is {
		high = low
	}
	a, errA := strconv.Atoi(low)
	b, errB := strconv.Atoi(high)
	if errA != nil || errB != nil || a < 100 || b > 999 || a > b {
		return [2]int{}, fmt.Errorf("status %q: want one like 200, or a range like 200-399", s)
	}
	return [2]int{a, b}, nil
}

// unescape reads \r, \n, \t, \\ and \xHH.
func unescape(s string) ([]byte, error) {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b = append(b, s[i])
			continue
		}
		i++
		switch {
		case i < len(s) && s[i] == 'r':
			b = append(b, '\r')
		case i < len(s) && s[i] == 'n':
			b = append(b, '\n')
		case i < len(s) && s[i] == 't':
			b = append(b, '\t')
		case i < len(s) && s[i] == '\\':
			b = append(b, '\\')
		case i+2 < len(s) && s[i] == 'x':
			v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return nil, fmt.Errorf("%q: want two digits of 0-9, a-f behind \\x", s)
			}
			b = append(b, byte(v))
			i += 2
		default:
			return nil, fmt.Errorf("%q: want \\r, \\n, \\t, \\\\ or \\xHH after a backslash", s)
		}
	}
	return b, nil
}
