package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// reasonCount is how many ends of a direction there are.
const reasonCount = int(splice.Failed) + 1

// events turns what the server tells into log lines and counts.
type events struct {
	log      *slog.Logger
	daemon   bool // there are several listeners and upstreams
	toTarget [reasonCount]atomic.Uint64
	toClient [reasonCount]atomic.Uint64
	held     atomic.Uint64

	mu       sync.Mutex
	lastHeld time.Time
}

func newLogger(w io.Writer, format string) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

func newEvents(log *slog.Logger) *events { return &events{log: log} }

func (e *events) hooks() proxy.Hooks {
	return proxy.Hooks{Ended: e.onEnded, Failed: e.onFailed, Held: e.onHeld, Changed: e.onChanged, Inherited: e.onInherited}
}

// onEnded writes the one line of a connection. Its keys are a contract: see
// docs/relay.md.
func (e *events) onEnded(c proxy.Ended) {
	r := c.Result
	what := "connection ended"
	if w := c.Stats.Wire; w != nil && w.Left {
		what = "connection left to the next of its instance"
	} else {
		e.toTarget[r.AToB.Reason].Add(1)
		e.toClient[r.BToA.Reason].Add(1)
	}
	engine, why := proxy.CarriedBy(c.Stats)
	log := e.log
	if e.daemon {
		log = log.With("listener", c.Listener, "route", c.Route, "upstream", c.Upstream, "server", c.Server)
		if c.SNI != "" {
			log = log.With("sni", c.SNI)
		}
		if c.Cut != "" {
			log = log.With("cut", c.Cut)
		}
	}
	args := []any{
		"id", c.ID,
		"client", c.Client,
		"target", c.Target,
		"engine", engine.String(),
		"engine_reason", why.String(),
		"bytes_to_target", r.AToB.Bytes,
		"bytes_to_client", r.BToA.Bytes,
		"end_to_target", r.AToB.Reason.String(),
		"end_to_client", r.BToA.Reason.String(),
		"duration_ms", float64(r.Ended.Sub(c.Started).Microseconds()) / 1e3,
	}
	log.Info(what, append(args, wireArgs(c.Stats.Wire)...)...)
	e.failure(c, "to_target", r.AToB)
	e.failure(c, "to_client", r.BToA)
}

// wireArgs are the keys of a connection that was handed over to wire, or was to
// be. Without privileges none is, which is no news.
func wireArgs(w *splice.WireStats) []any {
	if w == nil || w.Attempts == 0 && !w.Switched && (w.Refused == 0 || w.Refused == splice.WhyWireDenied) {
		return nil
	}
	args := []any{
		"wire_attempts", w.Attempts, "wire_closed_ms", float64(w.Closed.Microseconds()) / 1e3,
		"wire_bytes_to_target", w.Delivered[0], "wire_bytes_to_client", w.Delivered[1],
		"wire_packets_to_target", w.Packets[0], "wire_packets_to_client", w.Packets[1],
		"wire_retransmits_to_target", w.Retransmits[0], "wire_retransmits_to_client", w.Retransmits[1],
	}
	if w.EndedByHand {
		args = append(args, "wire_ended_by_hand", true)
	}
	if w.Refused != 0 {
		args = append(args, "wire_refused", w.Refused.String())
	}
	return args
}

// failure tells what the one line has no key for.
func (e *events) failure(c proxy.Ended, direction string, end splice.End) {
	if end.Reason == splice.Failed {
		e.log.Error("connection failed", "client", c.Client, "target", c.Target, "direction", direction, "error", end.Err)
	}
}

func (e *events) onFailed(f proxy.Failed) {
	log := e.log
	if e.daemon {
		log = log.With("listener", f.Listener, "upstream", f.Upstream)
	}
	log.Warn("no target reached", "id", f.ID, "client", f.Client, "reason", string(f.Reason), "error", oneLine{f.Err}, "duration_ms", float64(f.After.Microseconds())/1e3)
}

// onChanged tells of servers and names.
func (e *events) onChanged(c proxy.Change) {
	level := slog.LevelInfo
	if c.Err != nil {
		level = slog.LevelWarn
	}
	var args []any
	if c.Err != nil {
		args = append(args, "error", oneLine{c.Err})
	}
	if c.Detail != "" {
		args = append(args, "detail", c.Detail)
	}
	switch c.What {
	case proxy.FilesRead, proxy.FilesRefused:
		owner := []any{"upstream", c.Upstream}
		if c.Listener != "" {
			owner = []any{"listener", c.Listener}
		}
		e.log.Log(context.Background(), level, string(c.What), append(owner, args...)...)
		return
	}
	e.log.Log(context.Background(), level, "server "+string(c.What),
		append([]any{"upstream", c.Upstream, "server", c.Server}, args...)...)
}

// onInherited tells how the taking over of connections has gone.
func (e *events) onInherited(i proxy.Inherited) {
	args := []any{"connections", i.Connections, "lost", i.Lost}
	level := slog.LevelInfo
	if i.Err != nil || i.Lost > 0 {
		level = slog.LevelError
	}
	if i.Err != nil {
		args = append(args, "error", oneLine{i.Err})
	}
	e.log.Log(context.Background(), level, "connections taken over", args...)
}

// onHeld says so once a second at most: a shortage is told for each client.
func (e *events) onHeld(h proxy.Held) {
	e.held.Add(1)
	e.mu.Lock()
	now := time.Now()
	quiet := now.Sub(e.lastHeld) < time.Second
	if !quiet {
		e.lastHeld = now
	}
	e.mu.Unlock()
	if !quiet {
		e.log.Warn("new connections have to wait", "listen", h.Addr.String(), "error", oneLine{h.Err})
	}
}
