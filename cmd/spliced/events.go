package main

import (
	"context"
	"errors"
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
	failures repeats[failureKind]
	short    seldom
}

// A failureKind is what the lines of a flood of failures have in common.
type failureKind struct {
	listener, upstream string
	reason             proxy.FailReason
}

func newLogger(w io.Writer, format string) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

func newEvents(log *slog.Logger) *events {
	e := &events{log: log}
	e.failures.tell = e.onFailures
	return e
}

// close tells what was still to be told.
func (e *events) close() { e.failures.flush() }

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
	e.of(&c.Conn).Info(what, carried(&c.Conn, r.Ended, splice.DirectionStats{Bytes: r.AToB.Bytes, Reason: r.AToB.Reason},
		splice.DirectionStats{Bytes: r.BToA.Bytes, Reason: r.BToA.Reason})...)
	e.failure(c, "to_target", r.AToB)
	e.failure(c, "to_client", r.BToA)
}

// of is the log with the way that a connection has taken.
func (e *events) of(c *proxy.Conn) *slog.Logger {
	if !e.daemon {
		return e.log
	}
	log := e.log.With("listener", c.Listener, "route", c.Route, "upstream", c.Upstream, "server", c.Server)
	if c.SNI != "" {
		log = log.With("sni", c.SNI)
	}
	if c.Cut != "" {
		log = log.With("cut", c.Cut)
	}
	return log
}

// carried are the keys of what a connection has carried until then.
func carried(c *proxy.Conn, until time.Time, toTarget, toClient splice.DirectionStats) []any {
	engine, why := proxy.CarriedBy(c.Stats)
	args := []any{
		"id", c.ID,
		"client", c.Client,
		"target", c.Target,
		"engine", engine.String(),
		"engine_reason", why.String(),
		"bytes_to_target", toTarget.Bytes,
		"bytes_to_client", toClient.Bytes,
		"end_to_target", toTarget.Reason.String(),
		"end_to_client", toClient.Reason.String(),
		"duration_ms", milliseconds(until.Sub(c.Started)),
	}
	return append(args, wireArgs(c.Stats.Wire)...)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

// onAccepted is for those who want to know of each client at once.
func (e *events) onAccepted(a proxy.Accepted) {
	e.log.Info("connection accepted", "listener", a.Listener, "id", a.ID, "client", a.Client)
}

// onJoined tells that a server has answered.
func (e *events) onJoined(c proxy.Conn) {
	e.of(&c).Info("connection joined", "id", c.ID, "client", c.Client, "target", c.Target, "connect_ms", milliseconds(c.Connected))
}

// tellEvery has the living connections told again and again, until stop has
// returned.
func (e *events) tellEvery(interval time.Duration, living func() []proxy.Conn) (stop func()) {
	if interval <= 0 {
		return func() {}
	}
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case now := <-ticker.C:
				e.onRunning(living(), now)
			case <-stopped:
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(stopped)
		<-done
	})
}

func (e *events) onRunning(conns []proxy.Conn, now time.Time) {
	for i := range conns {
		c := &conns[i]
		e.of(c).Info("connection running", carried(c, now, c.Stats.AToB, c.Stats.BToA)...)
	}
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
	if w.Errors != [2]uint64{} {
		args = append(args, "wire_errors_to_target", w.Errors[0], "wire_errors_to_client", w.Errors[1])
	}
	if w.TooBig != [2]uint64{} {
		args = append(args, "wire_too_big_to_target", w.TooBig[0], "wire_too_big_to_client", w.TooBig[1])
	}
	if w.Late > 0 {
		args = append(args, "wire_late", w.Late)
	}
	if w.Lost {
		args = append(args, "wire_lost", true)
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
	kind := failureKind{f.Listener, f.Upstream, f.Reason}
	if !e.failures.again(kind, f) {
		return
	}
	e.ofFailure(kind).Warn("no target reached", "id", f.ID, "client", f.Client, "reason", string(f.Reason), "error", oneLine{f.Err}, "duration_ms", float64(f.After.Microseconds())/1e3)
}

func (e *events) ofFailure(k failureKind) *slog.Logger {
	if !e.daemon {
		return e.log
	}
	return e.log.With("listener", k.listener, "upstream", k.upstream)
}

// onFailures sums up a flood.
func (e *events) onFailures(k failureKind, n int, last any) {
	f := last.(proxy.Failed)
	e.ofFailure(k).Warn("no target reached, again", "repeated", n, "reason", string(k.reason), "last_id", f.ID, "last_client", f.Client, "last_error", oneLine{f.Err})
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
	args := []any{"connections", i.Connections, "lost", i.Lost, "flows", i.Flows}
	level := slog.LevelInfo
	err := errors.Join(i.Err, i.Instance)
	if err != nil || i.Lost > 0 {
		level = slog.LevelError
	}
	if err != nil {
		args = append(args, "error", oneLine{err})
	}
	e.log.Log(context.Background(), level, "connections taken over", args...)
}

// onHeld says so once a second at most: a shortage is told for each client.
func (e *events) onHeld(h proxy.Held) {
	e.held.Add(1)
	if e.short.may(time.Now()) {
		e.log.Warn("new connections have to wait", "listen", h.Addr.String(), "error", oneLine{h.Err})
	}
}
