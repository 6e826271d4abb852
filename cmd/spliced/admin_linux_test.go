package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/internal/testnet"
)

// An operated daemon echoes, and has a unix socket and an address for operators.
type operatedDaemon struct {
	*daemonProcess
	socket, tcp, server string
	text                string // of its configuration
}

func runOperated(t *testing.T, rest string) *operatedDaemon {
	t.Helper()
	dir := t.TempDir()
	d := &operatedDaemon{socket: filepath.Join(dir, "admin.sock"), server: testnet.Echo(t, "tcp", "127.0.0.1:0")}
	d.text = fmt.Sprintf("admin: {address: [\"unix:%s\", \"127.0.0.1:0\"]}\nlisteners:\n  web: {address: 127.0.0.1:0, engine: copy, upstream: web}\nupstreams:\n  web: {servers: [{address: %q}, {address: \"127.0.0.1:1\", backup: true}]}\n%s", d.socket, d.server, rest)
	d.daemonProcess = runDaemon(t, d.text)
	_, d.tcp, _ = strings.Cut(d.stderr.await(t, "msg=admin address=127"), "address=")
	return d
}

// ask asks by the unix socket.
func (d *operatedDaemon) ask(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	c := adminapi.Client{Address: "unix:" + d.socket}
	if err := c.Do(t.Context(), method, path, body, answer); err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
}

func (d *operatedDaemon) status(t *testing.T) (s adminapi.Status) {
	t.Helper()
	d.ask(t, http.MethodGet, "/v1/status", nil, &s)
	return s
}

func (d *operatedDaemon) first(t *testing.T) adminapi.Server {
	t.Helper()
	var u adminapi.Upstreams
	d.ask(t, http.MethodGet, "/v1/upstreams", nil, &u)
	return u.Upstreams[0].Servers[0]
}

// A person with curl sees what there is, and who may not sees nothing.
func TestAdminByCurl(t *testing.T) {
	testnet.Need(t, "root", "peers")
	testnet.Leaks(t)
	d := runOperated(t, "")
	curl := func(credential *syscall.Credential, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "--max-time", "30"}, args...)...)
		if credential != nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, at := range [][]string{{"--unix-socket", d.socket, "http://localhost/v1/status"}, {"http://" + d.tcp + "/v1/status"}} {
		out, err := curl(nil, at...)
		var s adminapi.Status
		if err == nil {
			err = json.Unmarshal([]byte(out), &s)
		}
		if err != nil || s.PID != d.cmd.Process.Pid || !s.Ready || s.State != "running" || s.Config.Path != d.config || s.Version == "" || s.MaxOpen == 0 {
			t.Fatalf("curl %v: %v, %s", at, err, out)
		}
		if want := fmt.Sprintf("%x", sha256.Sum256([]byte(d.text))); len(s.Config.Files) != 1 || s.Config.Files[0].SHA256 != want {
			t.Errorf("files %+v, want %s", s.Config.Files, want)
		}
	}
	out, err := curl(nil, "--unix-socket", d.socket, "-X", "POST", "-H", "Content-Type: application/json", "-d", `{"weight": 5}`,
		"http://localhost/v1/upstreams/web/servers/"+d.server+"/weight")
	if err != nil || !strings.Contains(out, `"weight":5`) {
		t.Errorf("weight: %v, %s", err, out)
	}
	d.stderr.await(t, `msg="server reweighted"`)
	d.stderr.await(t, `msg="admin request" method=POST`)
	if out, err = curl(nil, "--unix-socket", d.socket, "-X", "POST", "http://localhost/v1/reload"); err != nil || out != "" {
		t.Errorf("reload: %v, %s", err, out)
	}
	if s := d.status(t); s.Reload == nil || !s.Reload.OK {
		t.Errorf("status after a reload: %+v", s.Reload)
	}
	if out, err = curl(nil, "-H", "Host: evil.example", "http://"+d.tcp+"/v1/status"); err != nil || !strings.Contains(out, "forbidden-host") {
		t.Errorf("by another name: %v, %s", err, out)
	}
	// A directory that anybody may enter: it is the socket that is closed to others.
	for dir := filepath.Dir(d.socket); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, err = curl(&syscall.Credential{Uid: 65534, Gid: 65534}, "--unix-socket", d.socket, "http://localhost/v1/status"); err == nil || strings.Contains(out, "version") {
		t.Errorf("nobody may ask: %s", out)
	}
	d.stop(t)
}

// There is no moment in which the file of the admin socket is open to others.
func TestAdminSocketIsPrivate(t *testing.T) {
	testnet.Leaks(t)
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "admin.sock")
	stop, seen := make(chan struct{}), make(chan os.FileMode, 1)
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if info, err := os.Lstat(path); err == nil && info.Mode().Perm() != 0o600 {
				select {
				case seen <- info.Mode():
				default:
				}
			}
		}
	})
	for range 500 {
		ln, err := openDoor(t.Context(), "unix:"+path, "", false)
		if err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
	}
	close(stop)
	looking.Wait()
	select {
	case mode := <-seen:
		t.Errorf("its mode was %v for a moment", mode)
	default:
	}
}

// A log level that is set while an upgrade is under way is the new process's, or the old one says that it was
// too late.
func TestLogLevelDuringUpgrade(t *testing.T) {
	testnet.Leaks(t)
	d := runOperated(t, "log: {level: info}\n")
	t.Cleanup(func() {
		for _, pid := range d.generations()[1:] {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	c := adminapi.Client{Address: "unix:" + d.socket}
	d.signal(syscall.SIGUSR2)
	levels, last, pid := []string{"debug", "info"}, "", d.cmd.Process.Pid
	for i := 0; pid == d.cmd.Process.Pid; i++ {
		err := c.Do(t.Context(), http.MethodPut, "/v1/log-level", adminapi.LogLevel{Level: levels[i%2]}, nil)
		var refused *adminapi.Error
		switch {
		case err == nil:
			last = levels[i%2]
		case !errors.As(err, &refused) || refused.Code != adminapi.Succeeded:
			t.Fatal(err)
		}
		s := d.status(t)
		if pid = s.PID; pid != d.cmd.Process.Pid && s.LogLevel != last { // the old one may answer when the new one was told already
			t.Errorf("the new process has the level %s after it was set to %s", s.LogLevel, last)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := d.wait(); code != exitOK {
		t.Errorf("exit code %d of the first process", code)
	}
}

// What an operator has said outlasts reloads, and upgrades; a session keeps its
// number.
func TestAdminWordHolds(t *testing.T) {
	testnet.Leaks(t)
	d := runOperated(t, "log: {level: info}\n")
	t.Cleanup(func() {
		for _, pid := range d.generations()[1:] {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	k, err := startTalk(d.addr(t, "web"))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.say([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	var before, after adminapi.Sessions
	for len(before.Sessions) == 0 || before.Sessions[0].BytesToClient < 5 {
		d.ask(t, http.MethodGet, "/v1/sessions", nil, &before)
	}
	at := adminapi.Path("upstreams", "web", "servers", d.server)
	d.ask(t, http.MethodPost, at+"/drain", nil, nil)
	nine := 9
	d.ask(t, http.MethodPost, at+"/weight", adminapi.Weight{Weight: &nine}, nil)
	d.ask(t, http.MethodPut, "/v1/log-level", adminapi.LogLevel{Level: "debug"}, nil)
	holds := func(when string, weight int, level string) {
		t.Helper()
		if s := d.first(t); !s.Draining || s.Weight != weight {
			t.Errorf("%s: %+v", when, s)
		}
		if s := d.status(t); s.LogLevel != level {
			t.Errorf("%s: the level is %s, want %s", when, s.LogLevel, level)
		}
	}
	holds("at once", 9, "debug")
	d.ask(t, http.MethodPost, "/v1/reload", nil, nil)
	holds("after a reload", 9, "debug")
	d.ask(t, http.MethodPost, "/v1/upgrade", nil, nil)
	d.stderr.await(t, "connections taken over")
	holds("after an upgrade", 9, "debug")
	if s := d.status(t); s.PID == d.cmd.Process.Pid {
		t.Errorf("status %+v is the old process's", s)
	}
	d.ask(t, http.MethodGet, "/v1/sessions", nil, &after)
	if len(after.Sessions) != 1 || after.Sessions[0].ID != before.Sessions[0].ID || after.Sessions[0].BytesToTarget != 5 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	text := strings.Replace(d.text, "address: \""+d.server, "weight: 3, address: \""+d.server, 1)
	d.write(t, strings.Replace(text, "level: info", "level: warn", 1))
	d.ask(t, http.MethodPost, "/v1/reload", nil, nil)
	holds("after another weight and level", 3, "warn")
	// What is wrong stays remembered, and nothing changes.
	d.write(t, "nonsense: 1\n")
	c := adminapi.Client{Address: "unix:" + d.socket}
	var refused *adminapi.Error
	if err := c.Do(t.Context(), http.MethodPost, "/v1/reload", nil, nil); !errors.As(err, &refused) || refused.Code != adminapi.ReloadRefused || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a wrong file: %v", err)
	}
	if s := d.status(t); s.Reload.OK || !strings.Contains(s.Reload.Error, "nonsense") {
		t.Errorf("status %+v", s.Reload)
	}
	holds("after a wrong file", 3, "warn")
	d.ask(t, http.MethodDelete, adminapi.Path("sessions", fmt.Sprint(after.Sessions[0].ID)), nil, nil)
	if err := k.end(); err == nil {
		t.Error("a session that was closed has ended well")
	}
	pids := d.generations()
	if err := syscall.Kill(pids[len(pids)-1], syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := d.wait(); code != exitOK {
		t.Errorf("exit code %d of the first process", code)
	}
}

// An address that others can reach needs a token, and so does whoever asks there.
// It is read again with a reload.
func TestAdminToken(t *testing.T) {
	testnet.Leaks(t)
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(token)
		if err := os.WriteFile(token, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	const one, two = "0123456789abcdef", "fedcba9876543210"
	rest := "listeners:\n  web: {address: 127.0.0.1:0, upstream: web}\nupstreams:\n  web: {servers: \"127.0.0.1:1\"}\n"
	config := filepath.Join(dir, "c.yaml")
	for name, tc := range map[string]struct {
		admin, token string
		code         int
		want         string
	}{
		"none wanted": {`"0.0.0.0:0"`, "", exitUsage, "want admin.token_file"},
		"none there":  {"{address: \"0.0.0.0:0\", token_file: " + token + "}", "", exitUsage, config + ":1:43: token_file: stat " + token + ": no such file"},
		"too short":   {"{address: \"0.0.0.0:0\", token_file: " + token + "}", "short\n", exitUsage, "openssl rand -hex 32"},
		"two words":   {"{address: \"0.0.0.0:0\", token_file: " + token + "}", one + " " + two, exitUsage, "one word"},
	} {
		if err := os.WriteFile(config, []byte("admin: "+tc.admin+"\n"+rest), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(token)
		if tc.token != "" {
			write(tc.token, 0o600)
		}
		for _, command := range [][]string{{"run", "-c", config}, {"check", config}} {
			if _, stderr, code := execute(t, command...); code != tc.code || !strings.Contains(stderr, tc.want) {
				t.Errorf("%s: %s: exit code %d, %q", name, command[0], code, stderr)
			}
		}
	}
	write(one+"\n", 0o644)
	d := runDaemon(t, "admin: {address: \"0.0.0.0:0\", token_file: "+token+"}\n"+rest)
	d.stderr.await(t, "anybody may read the token")
	_, address, _ := strings.Cut(d.stderr.await(t, "msg=admin address="), "address=")
	address = "127.0.0.1" + address[strings.LastIndexByte(address, ':'):]
	code := func(token string) adminapi.Code {
		t.Helper()
		c := adminapi.Client{Address: address, Token: token}
		err := c.Get(t.Context(), "/v1/status", nil, new(adminapi.Status))
		var refused *adminapi.Error
		if err != nil && !errors.As(err, &refused) {
			t.Fatal(err)
		}
		if err == nil {
			return ""
		}
		return refused.Code
	}
	for token, want := range map[string]adminapi.Code{"": adminapi.Unauthorized, two: adminapi.Unauthorized, one: ""} {
		if got := code(token); got != want {
			t.Errorf("token %q: %q, want %q", token, got, want)
		}
	}
	_, stderr, exit := execute(t, "reload", "--admin", address)
	if exit != exitFailed || !strings.Contains(stderr, "--token-file") {
		t.Errorf("reload without: exit code %d, %q", exit, stderr)
	}
	other := filepath.Join(dir, "one")
	if err := os.WriteFile(other, []byte(one), 0o600); err != nil {
		t.Fatal(err)
	}
	write(two, 0o600)
	if _, stderr, exit = execute(t, "reload", "--admin", address, "--token-file", other); exit != exitOK {
		t.Errorf("reload: exit code %d, %q", exit, stderr)
	}
	for token, want := range map[string]adminapi.Code{one: adminapi.Unauthorized, two: ""} {
		if got := code(token); got != want {
			t.Errorf("after a reload, token %q: %q, want %q", token, got, want)
		}
	}
	// A token that can't be read refuses a reload, and the one before holds.
	write("short", 0o600)
	d.signal(syscall.SIGHUP)
	d.stderr.await(t, "reload refused")
	if got := code(two); got != "" {
		t.Errorf("after a reload that was refused: %q", got)
	}
	d.stop(t)
}
