package adminapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A Client asks a daemon.
type Client struct {
	Address string // as the configuration has it: unix:/path or host:port
	Token   string // "": none
}

// maxAnswer bounds what is read of an answer, and of a line of one.
const maxAnswer = 256 << 20

// Get asks for what is at path and reads it into v.
func (c *Client) Get(ctx context.Context, path string, query url.Values, v any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.Do(ctx, http.MethodGet, path, nil, v)
}

// Do asks for something to be done. body and answer are JSON; nil is none. What
// the daemon refuses is an [Error].
func (c *Client) Do(ctx context.Context, method, path string, body, answer any) error {
	response, err := c.ask(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the answer of the daemon at %s: %w", c.Address, err)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("the answer of the daemon at %s: %w", c.Address, err)
	}
	return nil
}

// Watch calls f with each line of what is watched, until f fails, ctx ends, or the
// daemon goes: then the error is io.EOF.
func (c *Client) Watch(ctx context.Context, interval time.Duration, sessions int, f func(line []byte) error) error {
	query := url.Values{"interval": {interval.String()}, "sessions": {fmt.Sprint(sessions)}}
	response, err := c.ask(ctx, http.MethodGet, "/v1/watch?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	for {
		line, err := lines.ReadBytes('\n')
		switch {
		case err == nil:
			err = f(line)
		case ctx.Err() != nil:
			err = ctx.Err()
		case errors.Is(err, io.ErrUnexpectedEOF):
			err = io.EOF
		}
		if err != nil {
			return err
		}
	}
}

// closedUnasked is what package net/http says, without a name for it, when a connection was
// closed before the request was written: the daemon went away in that moment.
const closedUnasked = "http: server closed idle connection"

// ask returns an answer that says that it was done.
func (c *Client) ask(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
	}
	dialed, host := c.Address, c.Address
	network := "tcp"
	if path, ok := strings.CutPrefix(c.Address, "unix:"); ok {
		network, dialed, host = "unix", path, "localhost"
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, content)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon at %s: %w", c.Address, err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, dialed)
		},
	}}
	response, err := client.Do(r)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL, which is not what was meant
		}
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			err = op.Err // the address is told anyway
		}
		if err.Error() == closedUnasked {
			err = io.EOF
		}
		return nil, fmt.Errorf("ask the daemon at %s: %w", c.Address, err)
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("the answer of the daemon at %s: %w", c.Address, err)
	}
	failure := Failure{Error: &Error{Status: response.StatusCode, Message: strings.TrimSpace(string(text))}}
	if json.Unmarshal(text, &failure) != nil || failure.Error == nil {
		return nil, fmt.Errorf("the daemon at %s answers %s: %.200s", c.Address, response.Status, text)
	}
	failure.Error.Status = response.StatusCode
	return nil, failure.Error
}
