// Package adminapi is the way to a running daemon for its operators: JSON over
// HTTP/1.1, the server's side and the client's. docs/run.md describes it, and so
// does [OpenAPI], which is made of the same table that requests are answered by.
package adminapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spliced-io/spliced/proxy"
)

// A Daemon is what the API asks beside the server.
type Daemon interface {
	// Status fills in what the server does not know: all but the counts.
	Status() Status
	// Routes are those of a listener.
	Routes(listener string) []Route
	Reload(ctx context.Context) error
	Upgrade(ctx context.Context) (pid int, err error)
	LogLevel() slog.Level
	SetLogLevel(slog.Level) error
}

// An API answers requests: see [New].
type API struct {
	server *proxy.Server
	daemon Daemon
	log    *slog.Logger
	table  []route
	// Pages answer GET outside of /v1/, by path. They are asked without a token:
	// nothing of them may be secret.
	Pages map[string]http.Handler

	writeTime time.Duration // bounds the answer to who reads it

	token    atomic.Pointer[string]
	watchers atomic.Int32
	surveyor surveyor
	stopped  chan struct{} // closed by Stop
	once     sync.Once

	mu      sync.Mutex
	refused time.Time // somebody without rights was last told of
}

// New returns an API. It logs writes, and who was refused.
func New(server *proxy.Server, daemon Daemon, log *slog.Logger) *API {
	return &API{server: server, daemon: daemon, log: log, table: routes(), writeTime: writeTime, surveyor: surveyor{server: server}, stopped: make(chan struct{})}
}

// SetToken has every request below /v1/ need this token; "" needs none.
func (a *API) SetToken(token string) { a.token.Store(&token) }

func (a *API) secret() string {
	if t := a.token.Load(); t != nil {
		return *t
	}
	return ""
}

// Stop ends what is watched. The rest is for [http.Server.Shutdown] to wait for.
func (a *API) Stop() { a.once.Do(func() { close(a.stopped) }) }

const (
	maxBody = 64 << 10
	// readTime bounds the body of a request, writeTime the answer to who reads it.
	readTime  = 10 * time.Second
	writeTime = 30 * time.Second
)

// NewServer returns an HTTP server for the API, which waits for nobody for long.
func (a *API) NewServer() *http.Server {
	s := &http.Server{
		Handler: a, ReadHeaderTimeout: readTime, IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	s.RegisterOnShutdown(a.Stop)
	return s
}

// ServeHTTP answers one request, in JSON whatever comes.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(readTime)) // a test's recorder has none
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	var problem *Error
	answered := http.StatusOK
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
			a.log.Error("admin: a defect", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			problem = fault(Internal, "a defect of spliced, see its log")
			answered = a.fail(w, problem)
		}
		a.note(r, answered, problem)
	}()
	if problem = a.guard(r); problem != nil {
		answered = a.fail(w, problem)
		return
	}
	if page := a.Pages[r.URL.Path]; page != nil && isRead(r.Method) && !isAPI(r.URL.Path) {
		_ = control.SetWriteDeadline(time.Now().Add(a.writeTime))
		page.ServeHTTP(w, r)
		return
	}
	route, vars, problem := a.find(r)
	if problem == nil {
		var answer any
		answer, problem = a.call(route, r, vars, w)
		if problem == nil {
			answered = a.answer(w, answer)
			return
		}
	}
	answered = a.fail(w, problem)
}

// call reads what is asked and does it.
func (a *API) call(route *route, r *http.Request, vars map[string]string, w http.ResponseWriter) (any, *Error) {
	q := &call{Request: r, api: a, vars: vars, w: w}
	if problem := q.readQuery(route); problem != nil {
		return nil, problem
	}
	if problem := q.readBody(route); problem != nil {
		return nil, problem
	}
	// What takes long is not ended by this deadline.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return route.do(q)
}

// answer writes v; nil is an answer without content, and streamed one that was
// written.
func (a *API) answer(w http.ResponseWriter, v any) int {
	switch v {
	case nil:
		w.WriteHeader(http.StatusNoContent)
		return http.StatusNoContent
	case streamed:
		return http.StatusOK
	}
	a.writeJSON(w, http.StatusOK, v)
	return http.StatusOK
}

func (a *API) fail(w http.ResponseWriter, e *Error) int {
	if e.Code == Unauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	a.writeJSON(w, e.Status, Failure{e})
	return e.Status
}

func (a *API) writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers, lists and maps of them
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.writeTime))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the reader may have gone
}

// note logs who has changed something, or tried, and who was refused for want of
// rights: these once a second.
func (a *API) note(r *http.Request, status int, problem *Error) {
	level := slog.LevelInfo
	args := []any{"method", r.Method, "path", r.URL.Path, "status", status, "from", from(r)}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		a.mu.Lock()
		now := time.Now()
		quiet := now.Sub(a.refused) < time.Second
		if !quiet {
			a.refused = now
		}
		a.mu.Unlock()
		if quiet {
			return
		}
		level = slog.LevelWarn
	case isRead(r.Method):
		return
	}
	if problem != nil {
		args = append(args, "code", string(problem.Code), "error", problem.Message)
	}
	a.log.Log(context.Background(), level, "admin request", args...)
}

// from names the client.
func from(r *http.Request) string {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && a.Network() == "unix" {
		return "unix"
	}
	return r.RemoteAddr
}

func isRead(method string) bool { return method == http.MethodGet || method == http.MethodHead }
