package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
)

// operated is a daemon as its operators have it.
type operated struct{ *daemon }

func (o operated) Status() adminapi.Status {
	ready := o.server.Accepting()
	s := adminapi.Status{
		Version: version(), PID: os.Getpid(), Started: o.started, UptimeS: time.Since(o.started).Seconds(),
		State: "running", Ready: ready, LogLevel: adminapi.LevelName(o.level.Level()), Held: o.events.held.Load(),
	}
	if !ready {
		s.State = "draining"
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s.Reload = o.reloaded
	s.Config = adminapi.Config{Path: o.path, Loaded: o.loaded, Files: make([]adminapi.ConfigFile, len(o.file.Sources))}
	for i, f := range o.file.Sources {
		s.Config.Files[i] = adminapi.ConfigFile{Path: f.Path, SHA256: fmt.Sprintf("%x", f.SHA256)}
	}
	return s
}

func (o operated) Routes(listener string) []adminapi.Route {
	o.mu.Lock()
	l := o.file.Listeners[listener]
	o.mu.Unlock()
	var routes []adminapi.Route
	for _, r := range l.Routes {
		routes = append(routes, adminapi.Route{Name: r.Name, When: conditions(&r), Upstream: r.Upstream})
	}
	if l.Upstream != "" {
		routes = append(routes, adminapi.Route{When: anything, Upstream: l.Upstream})
	}
	return routes
}

func (o operated) Reload(ctx context.Context) error { return o.reload(ctx) }

func (o operated) Upgrade(ctx context.Context) (pid int, err error) { return o.upgrade(ctx) }

func (o operated) LogLevel() slog.Level { return o.level.Level() }

func (o operated) SetLogLevel(l slog.Level) error {
	return o.server.Steer(func() { o.level.Set(l) })
}
