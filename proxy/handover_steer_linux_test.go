package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
)

// What an operator says of servers while the next process starts, which may take long, that
// one knows; once it accepts, it is the one to be told.
func TestSteeringDuringHandOver(t *testing.T) {
	testnet.Leaks(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := oneUpstream(proxy.Upstream{Servers: proxy.Targets("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")})
	g := newGeneration(t, c)
	if err := g.Start(ctx); err != nil {
		t.Fatal(err)
	}
	steer := func(s *proxy.Server) error {
		return errors.Join(s.SetDraining("u", "127.0.0.1:1", true), s.SetDraining("u", "127.0.0.1:2", false), s.SetWeight("u", "127.0.0.1:3", 7))
	}
	if err := g.SetDraining("u", "127.0.0.1:2", true); err != nil {
		t.Fatal(err)
	}
	near, far := testnet.UnixPair(t)
	next := newGeneration(t, c)
	said := ""
	next.BeforeAccept = func() error {
		return errors.Join(steer(g.Server), g.Steer(func() { said = `"meanwhile"` }))
	}
	started := make(chan error, 1)
	go func() {
		i, err := proxy.Inherit(ctx, far)
		if err == nil {
			next.Inheritance = i
			err = next.Start(ctx)
		}
		started <- err
	}()
	s, err := g.HandOver(ctx, near, proxy.Baggage{Last: func() json.RawMessage { return json.RawMessage(said) }}, "test")
	if err := errors.Join(err, <-started); err != nil {
		t.Fatal(err)
	}
	servers := next.Upstreams()[0].Servers
	if a, b, c := servers[0], servers[1], servers[2]; !a.Draining || b.Draining || c.Weight != 7 {
		t.Errorf("the next process has %+v", servers)
	}
	if got := string(next.Inheritance.Latest); got != `"meanwhile"` {
		t.Errorf("the next process was told %q", got)
	}
	if err := g.Steer(func() { t.Error("too late") }); !errors.Is(err, proxy.ErrSucceeded) {
		t.Errorf("who steers something else too late is told %v", err)
	}
	if err := steer(g.Server); !errors.Is(err, proxy.ErrSucceeded) {
		t.Errorf("who steers too late is told %v", err)
	}
	if err := g.Reload(ctx, c); !errors.Is(err, proxy.ErrSucceeded) {
		t.Errorf("who reloads too late is told %v", err)
	}
	if _, err := s.Move(ctx); err != nil {
		t.Error(err)
	}
}
