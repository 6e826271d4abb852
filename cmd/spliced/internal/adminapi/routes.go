package adminapi

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A route is something that can be asked for.
type route struct {
	method, path string
	name         string // in the OpenAPI file
	does         string // there too
	query        []param
	body, answer any    // zero values of what is read and written; nil: nothing
	stream       bool   // the answer is many of them, a line each
	codes        []Code // beside those that each route has
	do           func(*call) (any, *Error)
}

// A param is one of the query.
type param struct {
	name, does string
	kind       string // of JSON Schema
	enum       []string
	otherwise  string // "": nothing
}

// The bounds of parameters.
const (
	defaultLimit = 100
	maxLimit     = 1000
	maxBusiest   = 1000

	defaultInterval = time.Second
	minInterval     = 100 * time.Millisecond
	maxInterval     = time.Hour
)

// streamed is the answer of a route that has written it itself.
var streamed = new(struct{ byte })

// routes are all that there are.
func routes() []route {
	const server = "/v1/upstreams/{upstream}/servers/{server}/"
	steers := []Code{UnknownUpstream, UnknownServer, Succeeded}
	return []route{
		{method: http.MethodGet, path: "/v1/status", name: "status", answer: Status{}, do: (*call).status, does: "The daemon as a whole."},
		{method: http.MethodGet, path: "/v1/listeners", name: "listeners", answer: Listeners{}, do: (*call).listeners, does: "The listeners, with their routes and counts."},
		{method: http.MethodGet, path: "/v1/upstreams", name: "upstreams", answer: Upstreams{}, do: (*call).upstreams, does: "The upstreams and their servers."},
		{
			method: http.MethodGet, path: "/v1/sessions", name: "sessions", answer: Sessions{}, do: (*call).sessions,
			does: "Joined sessions, by id, page by page. All conditions that are set must hold.", codes: []Code{UnknownListener, UnknownUpstream, UnknownServer},
			query: []param{
				{name: "listener", kind: "string", does: "only those of this listener"},
				{name: "upstream", kind: "string", does: "only those of this upstream"},
				{name: "server", kind: "string", does: "only those with this server"},
				{name: "engine", kind: "string", enum: []string{"copy", "splice", "sockmap", "wire"}, does: "only those that it carries now"},
				{name: "client", kind: "string", does: "only those of this address, address and port, or network; or unix"},
				{name: "limit", kind: "integer", otherwise: fmt.Sprint(defaultLimit), does: fmt.Sprintf("how many at most, up to %d", maxLimit)},
				{name: "after", kind: "integer", otherwise: "0", does: "only those with a higher id: next of the page before"},
			},
		},
		{method: http.MethodGet, path: "/v1/sessions/{id}", name: "session", answer: Session{}, do: (*call).session, does: "One session.", codes: []Code{UnknownSession}},
		{
			method: http.MethodDelete, path: "/v1/sessions/{id}", name: "close-session", do: (*call).closeSession, codes: []Code{UnknownSession},
			does: "Reset a session: both its sides get a RST, and its line in the log has cut=asked.",
		},
		{
			method: http.MethodGet, path: "/v1/watch", name: "watch", answer: Snapshot{}, stream: true, do: (*call).watch, codes: []Code{TooManyWatchers},
			does: "All of that as a line of JSON (JSON Lines), at once and then again and again. Who does not read in time misses lines, and is left after 30 seconds.",
			query: []param{
				{name: "interval", kind: "string", otherwise: defaultInterval.String(), does: fmt.Sprintf("the time between two lines, %v to %v", minInterval, maxInterval)},
				{name: "sessions", kind: "integer", otherwise: "0", does: fmt.Sprintf("how many of the busiest sessions are in it, up to %d", maxBusiest)},
			},
		},
		{method: http.MethodPost, path: server + "drain", name: "drain", answer: Server{}, codes: steers, do: func(q *call) (any, *Error) { return q.drain(true) }, does: "Keep new connections from a server. Those that it has go on. It stays so over reloads and upgrades, until undrain or until the server's address leaves the configuration."},
		{method: http.MethodPost, path: server + "undrain", name: "undrain", answer: Server{}, codes: steers, do: func(q *call) (any, *Error) { return q.drain(false) }, does: "Let connections come to a server again."},
		{method: http.MethodPost, path: server + "weight", name: "weight", body: Weight{}, answer: Server{}, codes: steers, do: (*call).weight, does: "Give a server another weight. It stays so over reloads and upgrades, until its weight in the configuration changes."},
		{method: http.MethodGet, path: "/v1/log-level", name: "log-level", answer: LogLevel{}, do: (*call).logLevel, does: "What is logged."},
		{method: http.MethodPut, path: "/v1/log-level", name: "set-log-level", body: LogLevel{}, answer: LogLevel{}, codes: []Code{Succeeded}, do: (*call).setLogLevel, does: "Log more, or less. It stays so over reloads and upgrades, until the level in the configuration changes."},
		{method: http.MethodPost, path: "/v1/reload", name: "reload", codes: []Code{ReloadRefused}, do: (*call).reload, does: "Read the configuration again. It is answered when the new one is in force, or refused."},
		{method: http.MethodPost, path: "/v1/upgrade", name: "upgrade", answer: Upgraded{}, codes: []Code{UpgradeRefused}, do: (*call).upgrade, does: "Have a new process of the program take this one's place, with all connections."},
		{method: http.MethodGet, path: "/v1/openapi.json", name: "openapi", answer: map[string]any{}, do: (*call).openAPI, does: "This description, in OpenAPI 3.1."},
	}
}

// find finds the route of a request. A part of the path may have any byte in it if
// it is escaped.
func (a *API) find(r *http.Request) (*route, map[string]string, *Error) {
	parts, ok := split(r.URL.EscapedPath())
	var allowed []string
	for i := range a.table {
		route := &a.table[i]
		vars, fits := match(route.path, parts)
		switch {
		case !ok || !fits:
		case route.method == r.Method || route.method == http.MethodGet && r.Method == http.MethodHead && !route.stream:
			return route, vars, nil
		default:
			allowed = append(allowed, route.method)
		}
	}
	if allowed != nil {
		return nil, nil, fault(MethodNotAllowed, "%s %s: want %s", clip(r.Method), clip(r.URL.Path), strings.Join(allowed, " or "))
	}
	var paths []string
	for _, route := range a.table {
		paths = append(paths, route.path)
	}
	return nil, nil, unknown(UnknownPath, "path", clip(r.URL.Path), paths)
}

// clip shortens what somebody has sent for an error.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// split takes a path apart.
func split(path string) (parts []string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return nil, false
	}
	for part := range strings.SplitSeq(rest, "/") {
		p, err := url.PathUnescape(part)
		if err != nil {
			return nil, false
		}
		parts = append(parts, p)
	}
	return parts, true
}

// match says whether the parts are those of a pattern, and which variables it has
// then.
func match(pattern string, parts []string) (vars map[string]string, ok bool) {
	words := strings.Split(pattern[1:], "/")
	if len(words) != len(parts) {
		return nil, false
	}
	vars = make(map[string]string)
	for i, w := range words {
		if name, variable := strings.CutPrefix(w, "{"); variable {
			vars[strings.TrimSuffix(name, "}")] = parts[i]
		} else if w != parts[i] {
			return nil, false
		}
	}
	return vars, true
}

// Path escapes the parts of a path.
func Path(parts ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}
