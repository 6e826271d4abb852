package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/internal/testnet"
)

// Each command of ctl prints what there is, for people and for programs, and its
// exit code says how it went.
func TestCtl(t *testing.T) {
	testnet.Leaks(t)
	d := runOperated(t, "")
	k, err := startTalk(d.addr(t, "web"))
	if err != nil {
		t.Fatal(err)
	}
	defer k.c.Close()
	if err := k.say([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	var live adminapi.Sessions
	for len(live.Sessions) == 0 || live.Sessions[0].BytesToClient < 5 {
		d.ask(t, "GET", "/v1/sessions", nil, &live)
	}
	id := fmt.Sprint(live.Sessions[0].ID)
	client := k.c.LocalAddr().String()
	sock := []string{"--admin", "unix:" + d.socket}
	file := []string{"-c", d.config}
	for _, tc := range []struct {
		args, where []string
		code        int
		want        []string // in what is printed, or with another code said
	}{
		{[]string{"status"}, file, exitOK, []string{"running", d.config, "1 open of", "log level info"}},
		{[]string{"status"}, []string{"--admin", d.tcp}, exitOK, []string{"running"}},
		{[]string{"listeners"}, sock, exitOK, []string{"web", d.addr(t, "web"), "copy 1", "5 B"}},
		{[]string{"upstreams"}, sock, exitOK, []string{d.server, "127.0.0.1:1", "backup", "unchecked"}},
		{[]string{"sessions"}, sock, exitOK, []string{id, client, d.server, "copy"}},
		{[]string{"sessions", "--client", client, "--engine", "copy", "--limit", "0"}, sock, exitOK, []string{client}},
		{[]string{"sessions", "--listener", "wbe"}, sock, exitFailed, []string{`did you mean "web"?`}},
		{[]string{"sessions", "--engine", "warp"}, sock, exitFailed, []string{"want copy, splice, sockmap or wire"}},
		{[]string{"session", id}, sock, exitOK, []string{client, "copy (requested)", "idle for"}},
		{[]string{"session", "x"}, sock, exitUsage, []string{"expected"}},
		{[]string{"drain", "web", d.server}, sock, exitOK, []string{"draining"}},
		{[]string{"drain", "web", d.server, "--wait", "1ms"}, sock, exitFailed, []string{"still has 1 connections", "stays drained"}},
		{[]string{"undrain", "web", d.server}, sock, exitOK, []string{"unchecked"}},
		{[]string{"drain", "web", "127.0.0.1:12"}, sock, exitFailed, []string{`did you mean "127.0.0.1:1"?`}},
		{[]string{"weight", "web", d.server, "7"}, sock, exitOK, []string{"7 (1)"}},
		{[]string{"weight", "web", d.server, "-7"}, sock, exitUsage, []string{"-7"}},
		{[]string{"weight", "web", d.server, "7000"}, sock, exitFailed, []string{"1 to 1000"}},
		{[]string{"log-level"}, sock, exitOK, []string{"info"}},
		{[]string{"log-level", "debug"}, sock, exitOK, []string{"debug"}},
		{[]string{"log-level", "loud"}, sock, exitUsage, []string{"want debug, info, warn or error"}},
		{[]string{"reload"}, sock, exitOK, nil},
		{[]string{"close", "4711"}, sock, exitFailed, []string{"session 4711: it has ended"}},
		{[]string{"close", id}, sock, exitOK, nil},
		{[]string{"drain", "web", d.server, "--wait", "30s"}, sock, exitOK, []string{"draining"}},
		{[]string{"status"}, []string{"--admin", "unix:" + d.socket + "x"}, exitNoDaemon, []string{"does it run?"}},
		{[]string{"status"}, []string{"--admin", closedPort(t)}, exitNoDaemon, []string{"does not run"}},
		{[]string{"status"}, []string{"--admin", "nonsense"}, exitUsage, []string{`"nonsense"`, "host:port"}},
		{[]string{"status"}, []string{"--admin", "unix:" + d.socket, "--token-file", "/nowhere"}, exitFailed, []string{"the token", "/nowhere"}},
		{nil, sock, exitUsage, []string{"expected one of"}},
	} {
		name := strings.Join(tc.args, " ")
		stdout, stderr, code := execute(t, append(append([]string{"ctl"}, tc.where...), tc.args...)...)
		said := stdout
		if code != exitOK {
			if said = stderr; stdout != "" || !strings.HasPrefix(stderr, "spliced: ") {
				t.Errorf("ctl %s prints %q and says %q", name, stdout, stderr)
			}
		} else if stderr != "" {
			t.Errorf("ctl %s says %q", name, stderr)
		}
		if code != tc.code {
			t.Errorf("ctl %s: exit code %d, want %d: %s", name, code, tc.code, stderr)
		}
		for _, want := range tc.want {
			if !strings.Contains(said, want) {
				t.Errorf("ctl %s: %q lacks %q", name, said, want)
			}
		}
	}
	for _, what := range []string{"status", "listeners", "upstreams", "sessions", "log-level"} {
		stdout, stderr, code := execute(t, append([]string{"ctl", "--json", what}, sock...)...)
		var v map[string]any
		if err := json.Unmarshal([]byte(stdout), &v); err != nil || code != exitOK || len(v) == 0 {
			t.Errorf("ctl --json %s: exit code %d, %v, %s%s", what, code, err, stdout, stderr)
		}
	}
	d.stop(t)
}

// A daemon that goes away in any moment of a question does not answer any more: that is what
// is said, whichever call has met it.
func TestCtlDaemonGoes(t *testing.T) {
	testnet.Leaks(t)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if n%2 == 0 {
				_, _ = c.Read(make([]byte, n%64))
			}
			c.Close()
		}
	}()
	defer func() {
		ln.Close()
		<-done
	}()
	client := &adminapi.Client{Address: "unix:" + path}
	for range 500 {
		if err := client.Get(t.Context(), "/v1/status", nil, nil); !nobodyAnswers(err) {
			t.Fatalf("%v is taken for an answer", err)
		}
	}
}

// Watching ends with the daemon, and says so.
func TestCtlWatch(t *testing.T) {
	testnet.Leaks(t)
	d := runOperated(t, "")
	text := start(t, command(t, "ctl", "--admin", "unix:"+d.socket, "watch", "--interval", "100ms"))
	lines := start(t, command(t, "ctl", "--json", "--admin", "unix:"+d.socket, "watch", "--interval", "100ms", "--sessions", "3"))
	for range 3 {
		c, err := net.DialTimeout("tcp", d.addr(t, "web"), patience)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	text.stdout.awaitNth(t, "running  open ", 2)
	var shot adminapi.Snapshot
	if err := json.Unmarshal([]byte(lines.stdout.awaitNth(t, `"status"`, 2)), &shot); err != nil || len(shot.Listeners) != 1 {
		t.Errorf("%v: %+v", err, shot)
	}
	d.stop(t)
	for _, p := range []*process{text, lines} {
		if code := p.wait(); code != exitNoDaemon {
			t.Errorf("exit code %d, %s", code, p.stderr.all())
		}
		p.stderr.await(t, "has gone")
	}
}

// Whoever watches sees the process that an upgrade brings, and the one after that; top
// does too.
func TestWatchOverUpgrades(t *testing.T) {
	testnet.Leaks(t)
	d := runOperated(t, "")
	t.Cleanup(func() {
		for _, pid := range d.generations()[1:] {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	lines := start(t, command(t, "ctl", "--json", "--admin", "unix:"+d.socket, "watch", "--interval", "100ms"))
	text := start(t, command(t, "ctl", "--admin", d.tcp, "watch", "--interval", "100ms"))
	p := newPTY(t, 160, 40)
	top := p.run(t, "top", "--admin", "unix:"+d.socket, "--interval", "100ms")
	pid := d.cmd.Process.Pid
	for i := range 3 {
		lines.stdout.await(t, fmt.Sprintf(`"pid":%d,`, pid))
		p.await(t, "the process", has(fmt.Sprintf("process %d ", pid), "web"))
		text.stdout.awaitNth(t, "running  open ", strings.Count(text.stdout.all(), "\n")+2)
		if i == 2 {
			break
		}
		stdout, stderr, code := execute(t, "ctl", "--admin", "unix:"+d.socket, "upgrade")
		next, err := strconv.Atoi(strings.TrimSpace(stdout))
		if code != exitOK || err != nil || next == pid {
			t.Fatalf("upgrade: exit code %d, %q, %s", code, stdout, stderr)
		}
		pid = next
		d.stderr.awaitNth(t, "msg=ended", i+1)
	}
	if pids := d.generations(); len(pids) != 3 || pids[2] != pid {
		t.Errorf("generations %v, want the last to be %d", pids, pid)
	}
	p.press(t, "q")
	if code := top.wait(); code != exitOK {
		t.Errorf("top: exit code %d", code)
	}
	lines.signal(os.Interrupt)
	if code := lines.wait(); code != exitOK {
		t.Errorf("interrupted: exit code %d", code)
	}
	d.stopLast(t)
	if code := text.wait(); code != exitNoDaemon {
		t.Errorf("after the daemon has gone: exit code %d", code)
	}
	text.stderr.await(t, "has gone")
}

// What the admin API does, ctl does: each call has a command.
func TestCtlHasEveryCall(t *testing.T) {
	var described struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		}
	}
	openapi, err := json.Marshal(adminapi.OpenAPI())
	if err == nil {
		err = json.Unmarshal(openapi, &described)
	}
	if err != nil {
		t.Fatal(err)
	}
	help, _, _ := execute(t, "ctl", "--help")
	named := map[string]string{"close-session": "close", "set-log-level": "log-level"}
	n := 0
	for path, methods := range described.Paths {
		for method, call := range methods {
			name := cmp.Or(named[call.OperationID], call.OperationID)
			if n++; name == "openapi" {
				continue // spliced openapi, for which no daemon is asked
			}
			if !regexp.MustCompile(`(?m)^\s+ctl ` + regexp.QuoteMeta(name) + `( |$)`).MatchString(help) {
				t.Errorf("%s %s: there is no ctl %s in\n%s", method, path, name, help)
			}
		}
	}
	if n < 14 {
		t.Errorf("only %d calls", n)
	}
}

// Several hundred sessions come in pages.
func TestCtlSessionPages(t *testing.T) {
	testnet.Leaks(t)
	if testing.Short() {
		t.Skip("opens many connections")
	}
	d := runOperated(t, "")
	const n = pageSize + 50
	var clients []net.Conn
	for range n {
		c, err := net.DialTimeout("tcp", d.addr(t, "web"), patience)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	eventually(t, func() error {
		if s := d.status(t); s.Joined != n {
			return fmt.Errorf("%d are joined", s.Joined)
		}
		return nil
	})
	for limit, want := range map[string]int{"0": n, "7": 7, fmt.Sprint(pageSize + 1): pageSize + 1} {
		stdout, stderr, code := execute(t, "ctl", "--json", "--admin", "unix:"+d.socket, "sessions", "--limit", limit)
		var found adminapi.Sessions
		if err := json.Unmarshal([]byte(stdout), &found); err != nil || code != exitOK || len(found.Sessions) != want || (found.Next > 0) != (want < n) {
			t.Errorf("limit %s: exit code %d, %v, %d sessions, next %d, %s", limit, code, err, len(found.Sessions), found.Next, stderr)
		}
	}
	if stdout, _, _ := execute(t, "ctl", "--admin", "unix:"+d.socket, "sessions"); !strings.Contains(stdout, "--limit 0") {
		t.Error("it does not say that there are more")
	}
	for _, c := range clients {
		_ = c.Close()
	}
	d.stop(t)
}

// What clients have sent can't move the cursor.
func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"web":              "web",
		"süß 日本":           "süß 日本",
		"\x1b[2Jevil":      "?[2Jevil",
		"a\r\nb\tc\x00":    "a??b?c?",
		"\xff\u202e\u0085": "???",
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestBytesText(t *testing.T) {
	for in, want := range map[float64]string{
		0: "0 B", 999: "999 B", 999.6: "1.00 kB", 1234: "1.23 kB", 12345: "12.3 kB", 123456: "123 kB", 999_600: "1.00 MB",
		9_996_000: "10.0 MB", 99_960_000: "100 MB", 5e12: "5.00 TB", 1e21: "1000 EB",
	} {
		if got := bytesText(in); got != want {
			t.Errorf("%v: %q, want %q", in, got, want)
		}
	}
}
