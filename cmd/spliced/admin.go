package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config"
)

// admin answers the operators of a daemon, over HTTP on a unix socket.
type admin struct {
	address string // as configured
	ln      net.Listener
	server  *http.Server
	done    chan struct{} // nil until it serves
}

// newAdmin answers nobody before serve. ln is what a predecessor has listened on;
// nil opens the address.
func newAdmin(ctx context.Context, address string, ln net.Listener, d *daemon) (*admin, error) {
	addr, err := proxy.ParseAddr(address)
	if err != nil {
		return nil, err // the configuration was checked
	}
	if ln == nil {
		if ln, err = proxy.Listen(ctx, addr, proxy.SocketOptions{}); err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
		if !strings.HasPrefix(addr.Address, "@") {
			if err := os.Chmod(addr.Address, 0o600); err != nil {
				_ = ln.Close()
				return nil, fmt.Errorf("admin: %w", err)
			}
		}
	}
	return &admin{
		address: address, ln: ln,
		server: &http.Server{Handler: d.api(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute},
	}, nil
}

// api are the things that can be asked for.
func (d *daemon) api() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, r *http.Request) {
		// The caller may go: what is begun is brought to its end.
		if err := d.reload(context.WithoutCancel(r.Context())); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /v1/upgrade", func(w http.ResponseWriter, r *http.Request) {
		pid, err := d.upgrade(context.WithoutCancel(r.Context()))
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]int{"pid": pid}) // the caller may have gone
	})
	return mux
}

// removeWith has the file of a socket that has come with an upgrade removed with it:
// it is this process's now.
func removeWith(ln net.Listener) {
	if u, ok := ln.(interface{ SetUnlinkOnClose(bool) }); ok && proxy.SocketPath(ln) != "" {
		u.SetUnlinkOnClose(true)
	}
}

func (a *admin) serve() {
	removeWith(a.ln)
	a.done = make(chan struct{})
	go func() {
		defer close(a.done)
		_ = a.server.Serve(a.ln) // until stop or leave
	}()
}

func (a *admin) stop() {
	_ = a.server.Close()
	if a.done == nil {
		_ = a.ln.Close()
		return
	}
	<-a.done
}

// leave lets another process answer, which has the socket too. Who has asked is
// answered.
func (a *admin) leave() {
	if u, ok := a.ln.(interface{ SetUnlinkOnClose(bool) }); ok {
		u.SetUnlinkOnClose(false)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if a.server.Shutdown(ctx) != nil {
		_ = a.server.Close()
	}
	<-a.done
}

// adminAddress is where the daemon of a configuration is asked to do something, which
// signal has it do as well.
func adminAddress(path string, std streams, what, signal string) (string, error) {
	file, err := loadConfig(config.Reader{}, path, std)
	if err != nil {
		return "", err
	}
	if file.Admin.Address == "" {
		return "", usageError{fmt.Errorf("%s: the configuration has no admin address to ask at: add admin: unix:/run/spliced.sock, or send %s and read the log", what, signal)}
	}
	return file.Admin.Address, nil
}

// askReload has the daemon at address reload. The error is the daemon's.
func askReload(ctx context.Context, address string) error {
	_, err := ask(ctx, address, "/v1/reload")
	var refused refusal
	switch {
	case errors.As(err, &refused):
		return fmt.Errorf("reload refused, the old configuration stays in force:\n%w", err)
	case err != nil:
		return fmt.Errorf("reload: %w", err)
	}
	return nil
}

// A refusal is what the daemon answers if it does not do what it is asked.
type refusal struct{ text string }

func (r refusal) Error() string { return r.text }

// maxAnswer bounds what is read of an answer.
const maxAnswer = 256 << 20

// ask asks the daemon at address for path. Its refusal is an error of type refusal.
func ask(ctx context.Context, address, path string) (answer string, err error) {
	socket := strings.TrimPrefix(address, "unix:")
	client := &http.Client{
		Timeout: 2 * upgradeTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
		},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://spliced"+path, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(r)
	if err != nil {
		return "", fmt.Errorf("ask the daemon at %s: %w", address, errors.Unwrap(err))
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("the answer of the daemon at %s: %w", address, err)
	}
	if response.StatusCode/100 != 2 {
		return "", refusal{strings.TrimSpace(string(text))}
	}
	return string(text), nil
}
