package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
)

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// A stand is a server whose API answers at a unix socket and at 127.0.0.1.
type stand struct {
	*API
	proxy *proxy.Server
	unix  string // address for a client
	tcp   string
	log   *logged

	mu    sync.Mutex
	level slog.Level
	fails error // of reloads and upgrades
}

func (s *stand) Status() Status {
	return Status{Version: "test", PID: 1, State: "running", Ready: true, LogLevel: LevelName(s.LogLevel()), Config: Config{Files: []ConfigFile{}}}
}
func (s *stand) Routes(string) []Route { return []Route{{When: "everything", Upstream: "web"}} }
func (s *stand) Reload(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fails
}
func (s *stand) Upgrade(ctx context.Context) (int, error) { return 2, s.Reload(ctx) }
func (s *stand) LogLevel() slog.Level {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.level
}

func (s *stand) SetLogLevel(l slog.Level) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.level = l
	return nil
}

type logged struct {
	mu sync.Mutex
	strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.Write(b)
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.String()
}

// newStand has a listener "web" and an upstream "web" of two servers.
func newStand(t testing.TB, servers ...string) *stand {
	t.Helper()
	s := &stand{log: &logged{}}
	s.proxy = &proxy.Server{Config: proxy.Config{
		Listeners: map[string]proxy.Listener{"web": {Address: []string{"127.0.0.1:0"}, Upstream: "web"}},
		Upstreams: map[string]proxy.Upstream{"web": {Servers: proxy.Targets(servers...)}},
	}}
	t.Cleanup(func() { _ = s.proxy.Close() })
	if err := s.proxy.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.API = New(s.proxy, s, slog.New(slog.NewTextHandler(s.log, nil)))
	server := s.NewServer()
	var serving sync.WaitGroup
	path := filepath.Join(t.TempDir(), "s")
	for _, at := range [][2]string{{"unix", path}, {"tcp", "127.0.0.1:0"}} {
		ln, err := net.Listen(at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		serving.Go(func() { _ = server.Serve(ln) })
		if at[0] == "tcp" {
			s.tcp = ln.Addr().String()
		}
	}
	s.unix = "unix:" + path
	t.Cleanup(func() {
		s.Stop()
		_ = server.Close()
		serving.Wait()
	})
	return s
}

// An exchange is a request and what came back.
type exchange struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request to 127.0.0.1, whatever it says of Host.
func (s *stand) do(t testing.TB, method, target, body string, header ...string) exchange {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.tcp+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	return exchangeOf(t, &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}, r)
}

func exchangeOf(t testing.TB, client *http.Client, r *http.Request) exchange {
	t.Helper()
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	x := exchange{response.StatusCode, response.Header, b}
	checkAnswer(t, r, x)
	return x
}

// failure checks that x is an error in the form of all, and returns it.
func (x exchange) failure(t testing.TB) *Error {
	t.Helper()
	var f Failure
	if err := json.Unmarshal(x.body, &f); err != nil || f.Error == nil || f.Error.Message == "" || statusOf[f.Error.Code] != x.status || x.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s is no error: %v", x.status, x.body, err)
	}
	return f.Error
}

const asJSON = "application/json"

// Each wrong request is answered by what would be right.
func TestErrors(t *testing.T) {
	testnet.Leaks(t)
	s := newStand(t, "127.0.0.1:1", "127.0.0.1:2")
	const server = "/v1/upstreams/web/servers/127.0.0.1:1"
	for name, tc := range map[string]struct {
		method, path, body string
		header             []string
		code               Code
		want               string
	}{
		"path":              {"GET", "/v1/statsu", "", nil, UnknownPath, `did you mean "/v1/status"?`},
		"root":              {"GET", "/", "", nil, UnknownPath, "not known"},
		"slash":             {"GET", "/v1/status/", "", nil, UnknownPath, "/v1/status"},
		"dots":              {"GET", "/v1/../v1/status", "", nil, UnknownPath, "not known"},
		"method":            {"POST", "/v1/status", "", nil, MethodNotAllowed, "want GET"},
		"methods":           {"PATCH", "/v1/log-level", "", nil, MethodNotAllowed, "want GET or PUT"},
		"head of a stream":  {"HEADER", "/v1/watch", "", nil, MethodNotAllowed, "want GET"},
		"options":           {"OPTIONS", "/v1/status", "", nil, MethodNotAllowed, "want GET"},
		"parameter":         {"GET", "/v1/sessions?listner=web", "", nil, BadParameter, `did you mean "listener"?`},
		"parameter, none":   {"GET", "/v1/status?x=1", "", nil, BadParameter, "there is none"},
		"twice":             {"GET", "/v1/sessions?limit=1&limit=2", "", nil, BadParameter, "twice"},
		"query":             {"GET", "/v1/sessions?limit=%zz", "", nil, BadParameter, "the query"},
		"limit":             {"GET", "/v1/sessions?limit=0", "", nil, BadParameter, "from 1 to 1000"},
		"after":             {"GET", "/v1/sessions?after=-1", "", nil, BadParameter, "whole number"},
		"engine":            {"GET", "/v1/sessions?engine=warp", "", nil, BadParameter, "want copy, splice"},
		"client":            {"GET", "/v1/sessions?client=me", "", nil, BadParameter, "192.0.2.0/24"},
		"listener":          {"GET", "/v1/sessions?listener=wbe", "", nil, UnknownListener, `did you mean "web"?`},
		"upstream":          {"GET", "/v1/sessions?upstream=wbe", "", nil, UnknownUpstream, `did you mean "web"?`},
		"server":            {"GET", "/v1/sessions?server=127.0.0.1:12", "", nil, UnknownServer, `did you mean "127.0.0.1:1"?`},
		"interval":          {"GET", "/v1/watch?interval=1", "", nil, BadParameter, "want a time from"},
		"interval, short":   {"GET", "/v1/watch?interval=1ns", "", nil, BadParameter, "want a time from"},
		"busiest":           {"GET", "/v1/watch?sessions=many", "", nil, BadParameter, "whole number"},
		"session":           {"GET", "/v1/sessions/7", "", nil, UnknownSession, "it has ended"},
		"session, no id":    {"DELETE", "/v1/sessions/x", "", nil, UnknownSession, "want a number"},
		"session to close":  {"DELETE", "/v1/sessions/7", "", nil, UnknownSession, "it has ended"},
		"drain, upstream":   {"POST", "/v1/upstreams/wbe/servers/x/drain", "", nil, UnknownUpstream, `did you mean "web"?`},
		"drain, server":     {"POST", "/v1/upstreams/web/servers/x/drain", "", nil, UnknownServer, "one of 127.0.0.1:1, 127.0.0.1:2"},
		"drain, by GET":     {"GET", server + "/drain", "", nil, MethodNotAllowed, "want POST"},
		"drain, body":       {"POST", server + "/drain", `{"for": 1}`, []string{"Content-Type", asJSON}, BadBody, "want none"},
		"weight, none":      {"POST", server + "/weight", "", nil, BadBody, `{"weight": 10}`},
		"weight, empty":     {"POST", server + "/weight", "{}", []string{"Content-Type", asJSON}, BadBody, "is missing"},
		"weight, text":      {"POST", server + "/weight", `{"weight": "5"}`, []string{"Content-Type", asJSON}, BadBody, `{"weight": 10}`},
		"weight, too much":  {"POST", server + "/weight", `{"weight": 1001}`, []string{"Content-Type", asJSON}, BadBody, "1 to 1000"},
		"weight, below":     {"POST", server + "/weight", `{"weight": -1}`, []string{"Content-Type", asJSON}, BadBody, "1 to 1000"},
		"weight, more":      {"POST", server + "/weight", `{"weight": 1} 2`, []string{"Content-Type", asJSON}, BadBody, "something comes after"},
		"weight, key":       {"POST", server + "/weight", `{"wieght": 1}`, []string{"Content-Type", asJSON}, BadBody, "unknown field"},
		"type":              {"POST", server + "/weight", `{"weight": 1}`, []string{"Content-Type", "text/plain"}, NotJSON, "want application/json"},
		"no type":           {"POST", server + "/weight", `{"weight": 1}`, nil, NotJSON, "want application/json"},
		"form":              {"POST", "/v1/reload", "a=b", []string{"Content-Type", "application/x-www-form-urlencoded"}, NotJSON, "want application/json"},
		"too large":         {"PUT", "/v1/log-level", strings.Repeat(" ", maxBody+1), []string{"Content-Type", asJSON}, BodyTooLarge, "65536"},
		"level":             {"PUT", "/v1/log-level", `{"level": "loud"}`, []string{"Content-Type", asJSON}, BadBody, "want debug, info, warn or error"},
		"rebound name":      {"GET", "/v1/status", "", []string{"Host", "evil.example"}, ForbiddenHost, "want localhost"},
		"rebound, port":     {"GET", "/v1/status", "", []string{"Host", "evil.example:80"}, ForbiddenHost, "token_file"},
		"another address":   {"GET", "/v1/status", "", []string{"Host", "192.0.2.1"}, ForbiddenHost, "token_file"},
		"looks like ours":   {"GET", "/v1/status", "", []string{"Host", "localhost.evil.example"}, ForbiddenHost, "token_file"},
		"another site":      {"POST", "/v1/reload", "", []string{"Origin", "http://evil.example"}, CrossOrigin, "evil.example"},
		"reads from it":     {"GET", "/v1/status", "", []string{"Origin", "http://evil.example"}, CrossOrigin, "evil.example"},
		"another port":      {"POST", "/v1/reload", "", []string{"Origin", "http://127.0.0.1:1"}, CrossOrigin, "127.0.0.1:1"},
		"no origin":         {"POST", "/v1/reload", "", []string{"Origin", "null"}, CrossOrigin, "null"},
		"fetch metadata":    {"GET", "/v1/status", "", []string{"Sec-Fetch-Site", "cross-site"}, CrossOrigin, "another site"},
		"a sister's":        {"POST", "/v1/reload", "", []string{"Sec-Fetch-Site", "same-site"}, CrossOrigin, "another site"},
		"token not wanted":  {"GET", "/v1/nothing", "", []string{"Authorization", "Bearer x"}, UnknownPath, "not known"},
		"a very long path":  {"GET", "/" + strings.Repeat("x", 5000), "", nil, UnknownPath, "..."},
		"not an escape, %":  {"GET", "/v1/%2e%2e/status", "", nil, UnknownPath, "not known"},
		"an escaped server": {"POST", "/v1/upstreams/web/servers/a%2Fb/drain", "", nil, UnknownServer, "a/b"},
	} {
		t.Run(name, func(t *testing.T) {
			e := s.do(t, tc.method, tc.path, tc.body, tc.header...).failure(t)
			if e.Code != tc.code || !strings.Contains(e.Message, tc.want) {
				t.Errorf("%s, %q; want %s, %q", e.Code, e.Message, tc.code, tc.want)
			}
		})
	}
	if e := s.do(t, "POST", "/v1/upstreams/web/servers/127.0.0.1:3/drain", "").failure(t); !slices.Contains(e.Nearest, "127.0.0.1:1") {
		t.Errorf("nearest are %q", e.Nearest)
	}
	s.mu.Lock()
	s.fails = errors.New("c.yaml:1:1: wrong\nc.yaml:2:2: too")
	s.mu.Unlock()
	if e := s.do(t, "POST", "/v1/reload", "").failure(t); e.Code != ReloadRefused || e.Message != s.fails.Error() {
		t.Errorf("a reload that is refused: %+v", e)
	}
	if e := s.do(t, "POST", "/v1/upgrade", "{}", "Content-Type", asJSON).failure(t); e.Code != UpgradeRefused {
		t.Errorf("an upgrade that is refused: %+v", e)
	}
}

// A unix socket may have been given a port that a browser can reach (ssh -L).
func TestReboundUnix(t *testing.T) {
	testnet.Leaks(t)
	s := newStand(t, "127.0.0.1:1")
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(s.unix, "unix:"))
		},
	}}
	for host, code := range map[string]Code{"evil.example": ForbiddenHost, "localhost": "", "127.0.0.1:9901": ""} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+host+"/v1/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		x := exchangeOf(t, client, r)
		if code == "" && x.status != 200 || code != "" && x.failure(t).Code != code {
			t.Errorf("%s: %d %s, want %q", host, x.status, x.body, code)
		}
	}
}

// What may be asked is answered.
func TestAllowed(t *testing.T) {
	testnet.Leaks(t)
	s := newStand(t, "127.0.0.1:1")
	for name, tc := range map[string]struct {
		method, path string
		header       []string
		status       int
	}{
		"plain":            {"GET", "/v1/status", nil, 200},
		"head":             {"HEAD", "/v1/status", nil, 200},
		"localhost":        {"GET", "/v1/status", []string{"Host", "localhost:80"}, 200},
		"LOCALHOST.":       {"GET", "/v1/status", []string{"Host", "LOCALHOST."}, 200},
		"by IPv6":          {"GET", "/v1/status", []string{"Host", "[::1]:80"}, 200},
		"another 127":      {"GET", "/v1/status", []string{"Host", "127.8.9.1"}, 200},
		"our own page":     {"POST", "/v1/reload", []string{"Origin", "http://" + s.tcp}, 204},
		"our own, newer":   {"POST", "/v1/reload", []string{"Origin", "http://" + s.tcp, "Sec-Fetch-Site", "same-origin"}, 204},
		"typed":            {"GET", "/v1/status", []string{"Sec-Fetch-Site", "none"}, 200},
		"upgrade":          {"POST", "/v1/upgrade", nil, 200},
		"escaped":          {"POST", "/v1/upstreams/%77eb/servers/127.0.0.1%3A1/drain", nil, 200},
		"openapi":          {"GET", "/v1/openapi.json", nil, 200},
		"nobody's session": {"GET", "/v1/sessions?client=unix&engine=copy&limit=1000&after=0", nil, 200},
	} {
		if x := s.do(t, tc.method, tc.path, "", tc.header...); x.status != tc.status {
			t.Errorf("%s: %d %s", name, x.status, x.body)
		}
	}
	if text := s.log.text(); !strings.Contains(text, "method=POST path=/v1/reload status=204") || strings.Contains(text, "GET") {
		t.Errorf("the log has not the writes alone:\n%s", text)
	}
}

// With a token all below /v1/ needs it, at every address, and any name is fine.
func TestToken(t *testing.T) {
	testnet.Leaks(t)
	s := newStand(t, "127.0.0.1:1")
	const token = "0123456789abcdef"
	s.SetToken(token)
	for name, header := range map[string][]string{
		"none":       nil,
		"another":    {"Authorization", "Bearer 0123456789abcdee"},
		"longer":     {"Authorization", "Bearer 0123456789abcdefg"},
		"empty":      {"Authorization", "Bearer "},
		"alone":      {"Authorization", token},
		"basic":      {"Authorization", "Basic " + token},
		"two":        {"Authorization", "Bearer " + token + " " + token},
		"by a param": {"X-Token", token},
	} {
		x := s.do(t, "GET", "/v1/status", "", header...)
		if e := x.failure(t); e.Code != Unauthorized || x.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: %+v", name, e)
		}
	}
	for name, header := range map[string][]string{
		"it":           {"Authorization", "Bearer " + token},
		"lower case":   {"Authorization", "bearer " + token},
		"another name": {"Authorization", "Bearer " + token, "Host", "proxy.example"},
	} {
		if x := s.do(t, "GET", "/v1/status", "", header...); x.status != 200 {
			t.Errorf("%s: %d %s", name, x.status, x.body)
		}
	}
	if e := s.do(t, "POST", "/v1/reload", "", "Authorization", "Bearer "+token, "Origin", "http://evil.example").failure(t); e.Code != CrossOrigin {
		t.Errorf("a page of another site that knows it: %+v", e)
	}
	client := Client{Address: s.unix}
	var refused *Error
	if err := client.Get(t.Context(), "/v1/status", nil, new(Status)); !errors.As(err, &refused) || refused.Code != Unauthorized {
		t.Errorf("by the unix socket, without: %v", err)
	}
	client.Token = token
	if err := client.Get(t.Context(), "/v1/status", nil, new(Status)); err != nil {
		t.Errorf("by the unix socket, with it: %v", err)
	}
	if text := s.log.text(); !strings.Contains(text, "level=WARN msg=\"admin request\"") || !strings.Contains(text, "code=unauthorized") || strings.Contains(text, token) {
		t.Errorf("log:\n%s", text)
	}
}

// The client sees what the server does, by both kinds of address.
func TestClient(t *testing.T) {
	testnet.Leaks(t)
	echo := testnet.Echo(t, "tcp", "127.0.0.1:0")
	s := newStand(t, echo, "127.0.0.1:1")
	for _, address := range []string{s.unix, s.tcp} {
		c := Client{Address: address}
		conn, err := net.DialTimeout("tcp", s.proxy.Addrs("web")[0].String(), patience)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		var page Sessions
		query := url.Values{"listener": {"web"}, "upstream": {"web"}, "server": {echo}, "client": {conn.LocalAddr().String()}}
		if err := c.Get(t.Context(), "/v1/sessions", query, &page); err != nil || len(page.Sessions) != 1 || page.Next != 0 {
			t.Fatalf("%+v, %v", page, err)
		}
		session := page.Sessions[0]
		var one Session
		if err := c.Get(t.Context(), Path("sessions", fmt.Sprint(session.ID)), nil, &one); err != nil || one.Client != conn.LocalAddr().String() || one.Target != echo || one.BytesToTarget != 5 {
			t.Errorf("%+v, %v", one, err)
		}
		var server Server
		path := Path("upstreams", "web", "servers", echo)
		if err := c.Do(t.Context(), "POST", path+"/drain", nil, &server); err != nil || !server.Draining || server.State != "draining" || server.Active != 1 {
			t.Errorf("%+v, %v", server, err)
		}
		if err := c.Do(t.Context(), "POST", path+"/undrain", nil, &server); err != nil || server.Draining {
			t.Errorf("%+v, %v", server, err)
		}
		seven, none := 7, 0
		if err := c.Do(t.Context(), "POST", path+"/weight", Weight{&seven}, &server); err != nil || server.Weight != 7 || server.ConfiguredWeight != 1 {
			t.Errorf("%+v, %v", server, err)
		}
		if err := c.Do(t.Context(), "POST", path+"/weight", Weight{&none}, &server); err != nil || server.Weight != 1 {
			t.Errorf("%+v, %v", server, err)
		}
		if err := c.Do(t.Context(), "DELETE", Path("sessions", fmt.Sprint(session.ID)), nil, nil); err != nil {
			t.Error(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a session that was closed: %v, want a reset", err)
		}
		_ = conn.Close()
		var level LogLevel
		if err := c.Do(t.Context(), "PUT", "/v1/log-level", LogLevel{"debug"}, &level); err != nil || level.Level != "debug" || s.LogLevel() != slog.LevelDebug {
			t.Errorf("%+v, %v", level, err)
		}
		var status Status
		if err := c.Get(t.Context(), "/v1/status", nil, &status); err != nil || status.LogLevel != "debug" || status.Accepted == 0 {
			t.Errorf("%+v, %v", status, err)
		}
		var upstreams Upstreams
		if err := c.Get(t.Context(), "/v1/upstreams", nil, &upstreams); err != nil || len(upstreams.Upstreams) != 1 || len(upstreams.Upstreams[0].Servers) != 2 {
			t.Errorf("%+v, %v", upstreams, err)
		}
	}
}

// A watcher sees rates; it ends when it goes, and when the API stops.
func TestWatch(t *testing.T) {
	testnet.Leaks(t)
	echo := testnet.Echo(t, "tcp", "127.0.0.1:0")
	s := newStand(t, echo)
	c := Client{Address: s.tcp}
	conn, err := net.DialTimeout("tcp", s.proxy.Addrs("web")[0].String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	enough := errors.New("enough")
	seen := 0
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = c.Watch(ctx, minInterval, 3, func(line []byte) error {
		var shot Snapshot
		if err := json.Unmarshal(line, &shot); err != nil {
			return err
		}
		if len(shot.Listeners) != 1 || len(shot.Upstreams) != 1 || shot.Status.Version != "test" {
			return fmt.Errorf("line %s", line)
		}
		if _, err := conn.Write(make([]byte, 1000)); err != nil {
			return err
		}
		if len(shot.Sessions) == 1 && shot.Sessions[0].RateToTarget > 0 {
			if seen++; seen == 3 {
				return enough
			}
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("watched to %v", err)
	}
	ended := make(chan error, 1)
	go func() {
		first := true
		ended <- c.Watch(ctx, maxInterval, 0, func([]byte) error {
			if first {
				s.Stop()
			}
			first = false
			return nil
		})
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, io.EOF) {
			t.Errorf("the end of the API: %v", err)
		}
	case <-time.After(patience):
		t.Error("a watcher outlives the API")
	}
}

// No more may watch than that; one that has gone makes room.
func TestWatchersAreBounded(t *testing.T) {
	testnet.Leaks(t)
	s := newStand(t, "127.0.0.1:1")
	c := Client{Address: s.unix}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var watching sync.WaitGroup
	first := make(chan struct{}, maxWatchers)
	for range maxWatchers {
		watching.Go(func() {
			_ = c.Watch(ctx, time.Hour, 0, func([]byte) error {
				first <- struct{}{}
				return nil
			})
		})
	}
	for range maxWatchers {
		select {
		case <-first:
		case <-time.After(patience):
			t.Fatal("a watcher sees nothing")
		}
	}
	var refused *Error
	if err := c.Watch(ctx, time.Hour, 0, func([]byte) error { return io.EOF }); !errors.As(err, &refused) || refused.Code != TooManyWatchers {
		t.Errorf("one more: %v", err)
	}
	cancel()
	watching.Wait()
	for end := time.Now().Add(patience); s.watchers.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d watchers are counted that have gone", s.watchers.Load())
		}
	}
}

// Those who watch have the sessions asked once for all of them, and not more often than
// that takes a twentieth of the time; nothing is kept for nobody.
func TestWatchersShareSurveys(t *testing.T) {
	testnet.Leaks(t)
	s := newStand(t, "127.0.0.1:1")
	surveys := &s.surveyor
	first := surveys.survey(time.Hour)
	if again := surveys.survey(time.Hour); again != first {
		t.Error("another survey within the age")
	}
	first.Took = time.Hour
	if again := surveys.survey(0); again != first {
		t.Error("another survey at once, where one takes an hour")
	}
	first.Took = 0
	second := surveys.survey(0)
	if second == first || !second.At.After(first.At) || len(second.Listeners) != 1 {
		t.Errorf("%+v after %+v, want a newer one", second, first)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := (&Client{Address: s.unix}).Watch(ctx, time.Hour, 0, func([]byte) error { return io.EOF }); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	kept := func() bool {
		surveys.mu.Lock()
		defer surveys.mu.Unlock()
		return surveys.last != nil
	}
	for end := time.Now().Add(patience); kept(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a survey is kept for nobody")
		}
	}
}

// Who watches and does not read holds one snapshot, and nobody up.
func TestWatcherThatDoesNotRead(t *testing.T) {
	testnet.Leaks(t)
	s := newStand(t, "127.0.0.1:1")
	conn, err := net.DialTimeout("tcp", s.tcp, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	if _, err := fmt.Fprintf(conn, "GET /v1/watch?interval=100ms HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if x := s.do(t, "GET", "/v1/status", ""); x.status != 200 {
			t.Fatalf("%d %s", x.status, x.body)
		}
	}
	if n := s.watchers.Load(); n != 1 {
		t.Errorf("%d watchers", n)
	}
}
