package adminapi

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

func (q *call) status() (any, *Error) {
	stats := q.api.server.Stats()
	return q.api.viewStatus(&stats), nil
}

func (q *call) listeners() (any, *Error) {
	return Listeners{q.api.viewListeners(q.api.server.Listeners())}, nil
}

func (q *call) upstreams() (any, *Error) {
	return Upstreams{viewUpstreams(q.api.server.Upstreams())}, nil
}

func (q *call) sessions() (any, *Error) {
	f := proxy.Filter{Listener: q.query["listener"], Upstream: q.query["upstream"], Server: q.query["server"]}
	if text, ok := q.query["engine"]; ok {
		if i := slices.IndexFunc(engines, func(e splice.Engine) bool { return e.String() == text }); i >= 0 {
			f.Engine = engines[i]
		} else {
			return nil, fault(BadParameter, "engine %q: want copy, splice, sockmap or wire", text)
		}
	}
	if text, ok := q.query["client"]; ok {
		if f.Unix = text == "unix"; !f.Unix {
			var err error
			if f.Client, f.ClientPort, err = parseClient(text); err != nil {
				return nil, fault(BadParameter, "%v", err)
			}
		}
	}
	limit, problem := q.number("limit", defaultLimit, 1, maxLimit)
	if problem != nil {
		return nil, problem
	}
	after, problem := q.number("after", 0, 0, ^uint64(0))
	if problem != nil {
		return nil, problem
	}
	conns, more := q.api.server.Select(f, after, int(limit))
	if len(conns) == 0 && after == 0 {
		if problem := q.api.misnamed(&f); problem != nil {
			return nil, problem
		}
	}
	v := Sessions{Sessions: make([]Session, len(conns))}
	for i, c := range conns {
		v.Sessions[i] = ViewSession(c)
	}
	if more {
		v.Next = conns[len(conns)-1].ID
	}
	return v, nil
}

// misnamed says which name of a filter that has found nothing there is not.
// Sessions may have one that the configuration has no longer.
func (a *API) misnamed(f *proxy.Filter) *Error {
	if f.Listener != "" {
		var names []string
		for _, l := range a.server.Listeners() {
			names = append(names, l.Name)
		}
		if !slices.Contains(names, f.Listener) {
			return unknown(UnknownListener, "listener", f.Listener, names)
		}
	}
	if f.Upstream == "" && f.Server == "" {
		return nil
	}
	var names, servers []string
	for _, u := range a.server.Upstreams() {
		names = append(names, u.Name)
		for _, s := range u.Servers {
			if f.Upstream == "" || f.Upstream == u.Name {
				servers = append(servers, s.Name)
			}
		}
	}
	switch {
	case f.Upstream != "" && !slices.Contains(names, f.Upstream):
		return unknown(UnknownUpstream, "upstream", f.Upstream, names)
	case f.Server != "" && !slices.Contains(servers, f.Server):
		return unknown(UnknownServer, "server", f.Server, servers)
	}
	return nil
}

func (q *call) id() (uint64, *Error) {
	id, err := strconv.ParseUint(q.vars["id"], 10, 64)
	if err != nil {
		return 0, fault(UnknownSession, "session %q: want a number, as GET /v1/sessions shows them", clip(q.vars["id"]))
	}
	return id, nil
}

func noSession(id uint64) *Error {
	return fault(UnknownSession, "session %d: it has ended, or there never was one of that number", id)
}

func (q *call) session() (any, *Error) {
	id, problem := q.id()
	if problem != nil {
		return nil, problem
	}
	c, ok := q.api.server.Connection(id)
	if !ok {
		return nil, noSession(id)
	}
	return ViewSession(c), nil
}

func (q *call) closeSession() (any, *Error) {
	id, problem := q.id()
	if problem != nil {
		return nil, problem
	}
	if !q.api.server.CloseConnection(id) {
		return nil, noSession(id)
	}
	return nil, nil
}

func (q *call) drain(on bool) (any, *Error) {
	return q.steer(func(upstream, server string) error { return q.api.server.SetDraining(upstream, server, on) })
}

func (q *call) weight() (any, *Error) {
	w := q.body.(*Weight).Weight
	if w == nil {
		return nil, fault(BadBody, "the weight is missing: want %s", example(Weight{}))
	}
	return q.steer(func(upstream, server string) error { return q.api.server.SetWeight(upstream, server, *w) })
}

// steer changes a server, and answers what it is now.
func (q *call) steer(f func(upstream, server string) error) (any, *Error) {
	upstream, server := q.vars["upstream"], q.vars["server"]
	if err := f(upstream, server); err != nil {
		return nil, steered(err)
	}
	for _, u := range q.api.server.Upstreams() {
		for i := range u.Servers {
			if u.Name == upstream && u.Servers[i].Name == server {
				return viewServer(&u.Servers[i]), nil
			}
		}
	}
	return nil, unknown(UnknownServer, "server", server, nil) // it has just left
}

func (q *call) logLevel() (any, *Error) { return LogLevel{LevelName(q.api.daemon.LogLevel())}, nil }

func (q *call) setLogLevel() (any, *Error) {
	text := q.body.(*LogLevel).Level
	level, ok := ParseLevel(text)
	if !ok {
		return nil, fault(BadBody, "level %q: want debug, info, warn or error", clip(text))
	}
	if err := q.api.daemon.SetLogLevel(level); err != nil {
		return nil, steered(err)
	}
	return q.logLevel()
}

var levels = []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}

// LevelName is how a level is written.
func LevelName(l slog.Level) string { return strings.ToLower(l.String()) }

// ParseLevel reads one of debug, info, warn and error.
func ParseLevel(text string) (slog.Level, bool) {
	for _, l := range levels {
		if LevelName(l) == text {
			return l, true
		}
	}
	return 0, false
}

// What is begun is brought to its end, also if the caller goes.
func (q *call) reload() (any, *Error) {
	if err := q.api.daemon.Reload(context.WithoutCancel(q.Context())); err != nil {
		return nil, fault(ReloadRefused, "%v", err)
	}
	return nil, nil
}

func (q *call) upgrade() (any, *Error) {
	pid, err := q.api.daemon.Upgrade(context.WithoutCancel(q.Context()))
	if err != nil {
		return nil, fault(UpgradeRefused, "%v", err)
	}
	return Upgraded{pid}, nil
}

func (q *call) openAPI() (any, *Error) { return OpenAPI(), nil }
