package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
)

// Exit codes of ctl and top beside those of all commands. See docs/run.md.
const (
	exitNoDaemon  = 3 // nobody answers
	exitForbidden = 4 // one may not ask
)

// ctlCmd is for scripts, and for people who want one answer.
type ctlCmd struct {
	adminFlags
	JSON bool `name:"json" help:"Print what the daemon answers, as JSON."`

	Status    ctlStatusCmd    `cmd:"" help:"What the daemon is and does."`
	Listeners ctlListenersCmd `cmd:"" help:"List listeners."`
	Upstreams ctlUpstreamsCmd `cmd:"" help:"List upstreams and their servers."`
	Sessions  ctlSessionsCmd  `cmd:"" help:"List joined sessions."`
	Session   ctlSessionCmd   `cmd:"" help:"Show one session."`
	Drain     ctlDrainCmd     `cmd:"" help:"Keep new connections from a server."`
	Undrain   ctlUndrainCmd   `cmd:"" help:"Let connections come to a server again."`
	Weight    ctlWeightCmd    `cmd:"" help:"Give a server another weight, 0 for the configured one."`
	Close     ctlCloseCmd     `cmd:"" help:"Reset sessions."`
	LogLevel  ctlLogLevelCmd  `cmd:"" name:"log-level" help:"Show what is logged, or log more or less."`
	Reload    ctlReloadCmd    `cmd:"" help:"Have the daemon read its configuration again, as spliced reload."`
	Upgrade   ctlUpgradeCmd   `cmd:"" help:"Have a new process of the program take the daemon's place, as spliced upgrade."`
	Watch     ctlWatchCmd     `cmd:"" help:"A line each interval, until interrupted."`
}

// asked is a client with what its answers are for.
type asked struct {
	*adminapi.Client
	ctx context.Context
	std streams
	all *ctlCmd
}

// askTimeout bounds a question.
const askTimeout = 30 * time.Second

// ask finds the daemon and has f ask it. It says what went wrong, by the exit code
// too.
func (c *ctlCmd) ask(ctx context.Context, std streams, f func(a *asked) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	client, err := c.client(std)
	if err == nil {
		err = f(&asked{client, ctx, std, c})
	}
	return told(client, err, std)
}

// told prints an error that has an exit code of its own.
func told(client *adminapi.Client, err error, std streams) error {
	if err == nil || client == nil {
		return err
	}
	code := exitFailed
	var refused *adminapi.Error
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return err
	case errors.As(err, &refused):
		if refused.Code == adminapi.Unauthorized || refused.Code == adminapi.ForbiddenHost {
			code = exitForbidden
		}
	case errors.Is(err, os.ErrPermission):
		code = exitForbidden
	case errors.Is(err, context.Canceled):
		err = errors.New("interrupted")
	case nobodyAnswers(err):
		code = exitNoDaemon
	}
	fmt.Fprintf(std.err, "spliced: %v\n", explain(client, err))
	return exitStatus(code)
}

// answer asks for path and prints the answer: as it is, or by text.
func answer[T any](a *asked, path string, query url.Values, text func(io.Writer, *T)) error {
	ctx, cancel := context.WithTimeout(a.ctx, askTimeout)
	defer cancel()
	var raw json.RawMessage
	if err := a.Get(ctx, path, query, &raw); err != nil {
		return err
	}
	return show(a, raw, text)
}

// change is answer for what changes something.
func change[T any](a *asked, method, path string, body any, text func(io.Writer, *T)) error {
	ctx, cancel := context.WithTimeout(a.ctx, askTimeout)
	defer cancel()
	var raw json.RawMessage
	if err := a.Do(ctx, method, path, body, &raw); err != nil {
		return err
	}
	return show(a, raw, text)
}

func show[T any](a *asked, raw json.RawMessage, text func(io.Writer, *T)) error {
	if a.all.JSON {
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return err
		}
		b.WriteByte('\n')
		_, err := a.std.out.Write(b.Bytes())
		return err
	}
	v := new(T)
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("the answer of the daemon at %s: %w", a.Address, err)
	}
	text(a.std.out, v)
	return nil
}

type ctlStatusCmd struct{}

func (ctlStatusCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error { return answer(a, "/v1/status", nil, printStatus) })
}

type ctlListenersCmd struct{}

func (ctlListenersCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error { return answer(a, "/v1/listeners", nil, printListeners) })
}

type ctlUpstreamsCmd struct{}

func (ctlUpstreamsCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error { return answer(a, "/v1/upstreams", nil, printUpstreams) })
}

type ctlSessionsCmd struct {
	Listener string `placeholder:"NAME" help:"Only those of this listener."`
	Upstream string `placeholder:"NAME" help:"Only those of this upstream."`
	Server   string `placeholder:"NAME" help:"Only those with this server."`
	Engine   string `placeholder:"NAME" help:"Only those that it carries: copy, splice, sockmap or wire."`
	Client   string `placeholder:"ADDRESS" help:"Only those of this address, address:port or network; or unix."`
	Limit    count  `default:"100" placeholder:"N" help:"How many at most. 0: all. Default: 100."`
}

func (c *ctlSessionsCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error {
		query := make(url.Values)
		for key, value := range map[string]string{"listener": c.Listener, "upstream": c.Upstream, "server": c.Server, "engine": c.Engine, "client": c.Client} {
			if value != "" {
				query.Set(key, value)
			}
		}
		found, err := c.pages(a, query)
		if err != nil {
			return err
		}
		raw, err := json.Marshal(found)
		if err != nil {
			return err
		}
		return show(a, raw, printSessions)
	})
}

// pageSize is how many sessions are asked for at a time.
const pageSize = 1000

// pages asks for page after page.
func (c *ctlSessionsCmd) pages(a *asked, query url.Values) (*adminapi.Sessions, error) {
	found := &adminapi.Sessions{Sessions: []adminapi.Session{}}
	for {
		page := pageSize
		if c.Limit > 0 {
			page = min(page, int(c.Limit)-len(found.Sessions))
		}
		query.Set("limit", strconv.Itoa(page))
		query.Set("after", strconv.FormatUint(found.Next, 10))
		ctx, cancel := context.WithTimeout(a.ctx, askTimeout)
		var next adminapi.Sessions
		err := a.Get(ctx, "/v1/sessions", query, &next)
		cancel()
		if err != nil {
			return nil, err
		}
		found.Sessions, found.Next = append(found.Sessions, next.Sessions...), next.Next
		if found.Next == 0 || c.Limit > 0 && len(found.Sessions) >= int(c.Limit) {
			return found, nil
		}
	}
}

type ctlSessionCmd struct {
	ID uint64 `arg:"" help:"Its number, as ctl sessions and the log have it."`
}

func (c *ctlSessionCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error {
		return answer(a, adminapi.Path("sessions", strconv.FormatUint(c.ID, 10)), nil, printSession)
	})
}

// serverArgs name a server.
type serverArgs struct {
	Upstream string `arg:"" help:"Its upstream."`
	Server   string `arg:"" help:"Its name, as ctl upstreams has it."`
}

func (s *serverArgs) path(what string) string {
	return adminapi.Path("upstreams", s.Upstream, "servers", s.Server, what)
}

type ctlDrainCmd struct {
	serverArgs
	Wait duration `placeholder:"TIME" help:"Wait until it has no connections any more, so long at most."`
}

func (c *ctlDrainCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error {
		if c.Wait == 0 {
			return change(a, http.MethodPost, c.path("drain"), nil, printServer)
		}
		server := new(adminapi.Server)
		if err := a.Do(a.ctx, http.MethodPost, c.path("drain"), nil, server); err != nil {
			return err
		}
		for deadline := time.Now().Add(time.Duration(c.Wait)); server.Active > 0; {
			left := time.Until(deadline)
			if left <= 0 {
				return fmt.Errorf("server %s of upstream %s still has %d connections after %v: it stays drained", c.Server, c.Upstream, server.Active, time.Duration(c.Wait))
			}
			select {
			case <-time.After(min(drainLook, left)):
			case <-a.ctx.Done():
				return a.ctx.Err()
			}
			var all adminapi.Upstreams
			if err := a.Get(a.ctx, "/v1/upstreams", nil, &all); err != nil {
				return err
			}
			if server = find(&all, c.Upstream, c.Server); server == nil {
				return fmt.Errorf("server %s of upstream %s has left the configuration", c.Server, c.Upstream)
			}
		}
		raw, err := json.Marshal(server)
		if err != nil {
			return err
		}
		return show(a, raw, printServer)
	})
}

// find returns a server, or nil.
func find(all *adminapi.Upstreams, upstream, server string) *adminapi.Server {
	for _, u := range all.Upstreams {
		for i := range u.Servers {
			if u.Name == upstream && u.Servers[i].Name == server {
				return &u.Servers[i]
			}
		}
	}
	return nil
}

// drainLook is how often it is looked whether a server is empty.
const drainLook = 250 * time.Millisecond

type ctlUndrainCmd struct{ serverArgs }

func (c *ctlUndrainCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error { return change(a, http.MethodPost, c.path("undrain"), nil, printServer) })
}

type ctlWeightCmd struct {
	serverArgs
	Weight count `arg:"" help:"1 to 1000, or 0 for the configured one."`
}

func (c *ctlWeightCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error {
		weight := int(c.Weight)
		return change(a, http.MethodPost, c.path("weight"), adminapi.Weight{Weight: &weight}, printServer)
	})
}

type ctlCloseCmd struct {
	ID []uint64 `arg:"" help:"Their numbers, as ctl sessions and the log have them."`
}

func (c *ctlCloseCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error {
		var errs []error
		for _, id := range c.ID {
			ctx, cancel := context.WithTimeout(a.ctx, askTimeout)
			errs = append(errs, a.Do(ctx, http.MethodDelete, adminapi.Path("sessions", strconv.FormatUint(id, 10)), nil, nil))
			cancel()
		}
		return errors.Join(errs...)
	})
}

type ctlLogLevelCmd struct {
	Level string `arg:"" optional:"" help:"debug, info, warn or error."`
}

func (c *ctlLogLevelCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	text := func(w io.Writer, l *adminapi.LogLevel) { fmt.Fprintln(w, l.Level) }
	return all.ask(ctx, std, func(a *asked) error {
		if c.Level == "" {
			return answer(a, "/v1/log-level", nil, text)
		}
		if _, ok := adminapi.ParseLevel(c.Level); !ok {
			return usageError{fmt.Errorf("log level %q: want debug, info, warn or error", c.Level)}
		}
		return change(a, http.MethodPut, "/v1/log-level", adminapi.LogLevel{Level: c.Level}, text)
	})
}

type ctlReloadCmd struct{}

func (ctlReloadCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error { return askReload(a.ctx, a.Client) })
}

type ctlUpgradeCmd struct{}

func (ctlUpgradeCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error {
		answer, err := askUpgrade(a.ctx, a.Client)
		if err != nil {
			return err
		}
		raw, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		return show(a, raw, func(w io.Writer, u *adminapi.Upgraded) { fmt.Fprintln(w, u.PID) })
	})
}

type ctlWatchCmd struct {
	Interval duration `default:"1s" placeholder:"TIME" help:"Between two lines. Default: 1s."`
	Sessions count    `placeholder:"N" help:"With --json: how many of the busiest sessions each line has."`
}

func (c *ctlWatchCmd) Run(ctx context.Context, std streams, all *ctlCmd) error {
	return all.ask(ctx, std, func(a *asked) error {
		var last *adminapi.Snapshot
		err := c.follow(a, func(line []byte) error {
			if all.JSON {
				_, err := std.out.Write(line)
				return err
			}
			now := new(adminapi.Snapshot)
			if err := json.Unmarshal(line, now); err != nil {
				return err
			}
			_, err := fmt.Fprintln(std.out, watchLine(last, now))
			last = now
			return err
		})
		if errors.Is(err, context.Canceled) {
			return nil // that is how it ends
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the daemon at %s has gone: %w", a.Address, err)
		}
		return err
	})
}

// watchTries is how often in a row a daemon may end what is watched before its first
// line.
const watchTries = 3

// follow watches a daemon, and the processes that take its place by an upgrade, which
// answer at the same address. The error is io.EOF when nobody does any more.
func (c *ctlWatchCmd) follow(a *asked, f func(line []byte) error) error {
	for seen, tries := false, 0; ; {
		lines := 0
		err := a.Client.Watch(a.ctx, time.Duration(c.Interval), int(c.Sessions), func(line []byte) error {
			lines++
			return f(line)
		})
		if lines > 0 {
			seen, tries = true, 0
		}
		tries++
		switch {
		case seen && nobodyAnswers(err) && !errors.Is(err, io.EOF):
			return io.EOF
		case !errors.Is(err, io.EOF) || tries > watchTries:
			return err
		}
	}
}

// nobodyAnswers reports whether err says that there is no daemon, or not any more.
func nobodyAnswers(err error) bool {
	for _, gone := range []error{os.ErrNotExist, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, context.DeadlineExceeded, io.EOF} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}
