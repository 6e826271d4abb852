package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spliced-io/spliced/proxy"
)

// admin answers the operators of a daemon, over HTTP on a unix socket.
type admin struct {
	server *http.Server
	done   chan struct{}
}

func startAdmin(ctx context.Context, address string, d *daemon) (*admin, error) {
	addr, err := proxy.ParseAddr(address)
	if err != nil {
		return nil, err // the configuration was checked
	}
	ln, err := proxy.Listen(ctx, addr, proxy.SocketOptions{})
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	if !strings.HasPrefix(addr.Address, "@") {
		if err := os.Chmod(addr.Address, 0o600); err != nil {
			_ = ln.Close()
			return nil, fmt.Errorf("admin: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, r *http.Request) {
		// The caller may go: what is begun is brought to its end.
		if err := d.reload(context.WithoutCancel(r.Context())); err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	a := &admin{
		server: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute},
		done:   make(chan struct{}),
	}
	go func() {
		defer close(a.done)
		_ = a.server.Serve(ln) // until stop
	}()
	return a, nil
}

func (a *admin) stop() {
	_ = a.server.Close()
	<-a.done
}

// askReload has the daemon at address reload. The error is the daemon's.
func askReload(ctx context.Context, address string) error {
	path := strings.TrimPrefix(address, "unix:")
	client := &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://spliced/v1/reload", nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("reload: ask the daemon at %s: %w", address, errors.Unwrap(err))
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNoContent {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	return fmt.Errorf("reload refused, the old configuration stays in force:\n%s", strings.TrimSpace(string(text)))
}
