package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/spliced-io/spliced/internal/testnet"
)

// A relay is a running `spliced relay`.
type relay struct {
	*process
	addr string
}

func startRelay(t *testing.T, env []string, args ...string) *relay {
	t.Helper()
	cmd := command(t, append([]string{"relay", "--log-format", "json"}, args...)...)
	cmd.Env = append(cmd.Env, env...)
	r := &relay{process: start(t, cmd)}
	r.addr = strings.TrimPrefix(r.stdout.await(t, "listening on "), "listening on ")
	return r
}

func (r *relay) dial(t *testing.T) net.Conn {
	t.Helper()
	network, addr := "tcp", r.addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// ended returns the nth line about the end of a connection.
func (r *relay) ended(t *testing.T, n int) map[string]any {
	t.Helper()
	return parse(t, r.stderr.awaitNth(t, `"msg":"connection ended"`, n))
}

func parse(t *testing.T, line string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return m
}

// stop ends the relay the way that its users do.
func (r *relay) stop(t *testing.T) {
	t.Helper()
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != exitOK {
		t.Errorf("exit code %d after SIGTERM, want %d", code, exitOK)
	}
}

// echoServer returns the address of a target that sends back what it is sent.
func echoServer(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String()
}

func echo1(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
		t.Fatalf("echo of %q: %q, %v", s, b, err)
	}
}

// The keys of the line about the end of a connection are a contract.
func TestConnectionLine(t *testing.T) {
	testnet.Leaks(t)
	target := echoServer(t)
	r := startRelay(t, nil, "127.0.0.1:0", target)
	c := r.dial(t)
	echo1(t, c, "12345")
	_ = c.Close()
	line := r.ended(t, 1)
	if d, ok := line["duration_ms"].(float64); !ok || d <= 0 || d > patience.Seconds()*1000 {
		t.Errorf("duration_ms is %v", line["duration_ms"])
	}
	want := map[string]any{
		"msg": "connection ended", "level": "INFO", "id": 1.0,
		"client": c.LocalAddr().String(), "target": target,
		"engine": "copy", "engine_reason": "small-messages",
		"bytes_to_target": 5.0, "bytes_to_client": 5.0,
		"end_to_target": "eof", "end_to_client": "eof",
		"time": line["time"], "duration_ms": line["duration_ms"],
	}
	if !maps.Equal(line, want) {
		t.Errorf("line %v\nwant %v", line, want)
	}
	r.stop(t)
}

func TestTextLog(t *testing.T) {
	testnet.Leaks(t)
	r := startRelay(t, nil, "--log-format", "text", "127.0.0.1:0", echoServer(t))
	c := r.dial(t)
	echo1(t, c, "x")
	_ = c.Close()
	line := r.stderr.await(t, `msg="connection ended"`)
	for _, key := range []string{"client=", "target=", "engine=copy", "bytes_to_target=1", "end_to_client=eof", "duration_ms="} {
		if !strings.Contains(line, key) {
			t.Errorf("%q does not have %s", line, key)
		}
	}
	r.stop(t)
}

// Each option reaches the connection.
func TestLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want map[string]any
	}{
		"idle":      {[]string{"--idle-timeout", "50ms"}, map[string]any{"end_to_target": "idle", "end_to_client": "idle"}},
		"lifetime":  {[]string{"--max-lifetime", "50ms"}, map[string]any{"end_to_target": "lifetime", "end_to_client": "lifetime"}},
		"bytes":     {[]string{"--max-bytes", "4B"}, map[string]any{"end_to_target": "max", "end_to_client": "max", "bytes_to_target": 4.0, "bytes_to_client": 4.0}},
		"copy":      {[]string{"--engine", "copy", "--max-bytes", "4"}, map[string]any{"engine": "copy", "engine_reason": "requested"}},
		"auto":      {[]string{"--engine", "auto", "--max-bytes", "4"}, map[string]any{"engine": "copy", "engine_reason": "small-messages"}},
		"two ends":  {[]string{"--half-close-timeout", "50ms", "--max-bytes", "100"}, map[string]any{"end_to_target": "half-close-timeout"}},
		"no limits": {[]string{"--idle-timeout", "0s", "--half-close-timeout", "0s", "--max-bytes", "4"}, map[string]any{"end_to_target": "max"}},
	} {
		t.Run(name, func(t *testing.T) {
			testnet.Leaks(t)
			target := echoServer(t)
			if name == "two ends" {
				target = halfServer(t)
			}
			r := startRelay(t, nil, append(tc.args, "127.0.0.1:0", target)...)
			c := r.dial(t)
			if _, err := io.WriteString(c, "hello"); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, c) // to the end, whichever
			line := r.ended(t, 1)
			for k, v := range tc.want {
				if line[k] != v {
					t.Errorf("%s is %v, want %v: %v", k, line[k], v, line)
				}
			}
			r.stop(t)
		})
	}
}

// halfServer returns the address of a target that ends its own direction at
// once and then waits.
func halfServer(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String()
}

func TestBuiltinTarget(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", ":0", "unix"} {
		t.Run(listen, func(t *testing.T) {
			testnet.Leaks(t)
			if listen == "unix" {
				listen = "unix:" + filepath.Join(t.TempDir(), "s")
			}
			r := startRelay(t, nil, listen)
			try := r.stdout.await(t, "try: curl ")
			client := &http.Client{
				Transport: &http.Transport{
					DisableKeepAlives: true,
					DialContext:       func(context.Context, string, string) (net.Conn, error) { return r.dial(t), nil },
				},
				Timeout: patience,
			}
			url := "http://localhost/"
			if i := strings.LastIndex(try, "http://"); i >= 0 && !strings.HasPrefix(listen, "unix:") {
				url = try[i:]
				client.Transport = &http.Transport{DisableKeepAlives: true}
			}
			page := get(t, client, url)
			for _, want := range []string{"carried by spliced", "by copy (small-messages)", "connection       number 1"} {
				if !strings.Contains(page, want) {
					t.Errorf("the page does not say %q:\n%s", want, page)
				}
			}

			res, err := client.Get(url + "bytes/3MB")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			if err != nil || len(got) != 3e6 {
				t.Fatalf("%d bytes, %v; want 3000000", len(got), err)
			}
			want := make([]byte, len(got))
			fillPattern(want, 0)
			if !bytes.Equal(got, want) {
				t.Error("the bytes are not those of the pattern")
			}
			sum := sha256.Sum256(got)
			if h := res.Trailer.Get("X-Sha256"); h != hex.EncodeToString(sum[:]) {
				t.Errorf("trailer X-Sha256 is %q, want %x", h, sum)
			}
			if h := res.Trailer.Get("X-Carried-By"); !strings.Contains(h, "bytes spliced so far") {
				t.Errorf("trailer X-Carried-By is %q", h)
			}

			for _, bad := range []string{"x", "-1", "99999GiB", ""} {
				res, err := client.Get(url + "bytes/" + bad)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				if res.StatusCode < 400 || res.StatusCode > 499 {
					t.Errorf("/bytes/%s: %s", bad, res.Status)
				}
			}

			res, err = client.Post(url+"echo", "text/plain", strings.NewReader("shout"))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); string(b) != "shout" || err != nil {
				t.Errorf("/echo: %q, %v", b, err)
			}
			r.stop(t)
		})
	}
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, res.Status, err)
	}
	return string(b)
}

func TestMetrics(t *testing.T) {
	testnet.Leaks(t)
	r := startRelay(t, nil, "--metrics", "127.0.0.1:0", "127.0.0.1:0", echoServer(t))
	url := parse(t, r.stderr.await(t, `"msg":"metrics"`))["url"].(string)
	base := strings.TrimSuffix(url, "metrics")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

	if got := get(t, client, base+"connections"); got != "[]\n" {
		t.Errorf("/connections is %q before there is one", got)
	}
	c := r.dial(t)
	echo1(t, c, "12345")
	// A byte arrives a moment before it is counted.
	var live []map[string]any
	eventually(t, func() error {
		live = nil
		if err := json.Unmarshal([]byte(get(t, client, base+"connections")), &live); err != nil {
			return err
		}
		if len(live) != 1 || live[0]["bytes_to_client"] != 5.0 {
			return fmt.Errorf("connections %v", live)
		}
		return nil
	})
	keys := slices.Sorted(maps.Keys(live[0]))
	want := []string{
		"bytes_to_client", "bytes_to_target", "client", "end_to_client", "end_to_target", "engine", "engine_reason",
		"id", "last_progress", "listener", "local", "route", "server", "spliced_to_client", "spliced_to_target", "started", "target", "upstream",
	}
	if !slices.Equal(keys, want) {
		t.Errorf("keys %v, want %v", keys, want)
	}
	if live[0]["client"] != c.LocalAddr().String() || live[0]["end_to_client"] != "running" || live[0]["bytes_to_target"] != 5.0 {
		t.Errorf("connection %v", live[0])
	}
	text := get(t, client, url)
	for _, line := range []string{
		"spliced_connections_accepted_total 1\n", "spliced_connections_open 1\n", "spliced_connections_joined 1\n",
		`spliced_bytes_total{direction="to_target"} 5` + "\n", `spliced_bytes_total{direction="to_client"} 5` + "\n",
		`spliced_wire_too_big_total{direction="to_client"} 0` + "\n", "spliced_wire_late_total 0\n", "spliced_wire_lost_total 0\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("/metrics lacks %q:\n%s", line, text)
		}
	}
	if got := get(t, client, base+"healthz"); got != "ok\n" {
		t.Errorf("/healthz is %q", got)
	}
	r.signal(syscall.SIGTERM)
	r.stderr.await(t, `"msg":"draining"`)
	eventually(t, func() error {
		res, err := client.Get(base + "healthz")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusServiceUnavailable {
			return errors.New(res.Status)
		}
		return nil
	})
	_ = c.Close()
	if code := r.wait(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// After SIGTERM connections end by themselves.
func TestDrain(t *testing.T) {
	testnet.Leaks(t)
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		r := startRelay(t, nil, "127.0.0.1:0", echoServer(t))
		c := r.dial(t)
		echo1(t, c, "before")
		r.signal(sig)
		r.stderr.await(t, `"msg":"draining"`)
		echo1(t, c, "after")
		eventually(t, func() error {
			late, err := net.Dial("tcp", r.addr)
			if err == nil {
				_ = late.Close()
				return errors.New("still accepting")
			}
			return nil
		})
		_ = c.Close()
		if code := r.wait(); code != exitOK {
			t.Errorf("exit code %d after %v", code, sig)
		}
		if line := r.ended(t, 1); line["end_to_target"] != "eof" {
			t.Errorf("ended with %v", line)
		}
	}
}

// At the end of the drain timeout, and at a second signal, connections are cut.
func TestDrainEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		timeout string
		signals int
	}{
		"timeout":       {"50ms", 1},
		"the shortest":  {"1ns", 1},
		"for ever":      {"0s", 2},
		"second signal": {"1h", 2},
	} {
		t.Run(name, func(t *testing.T) {
			testnet.Leaks(t)
			r := startRelay(t, nil, "--drain-timeout", tc.timeout, "127.0.0.1:0", echoServer(t))
			c := r.dial(t)
			echo1(t, c, "x")
			r.signal(syscall.SIGTERM)
			if tc.signals > 1 {
				if line := r.stderr.await(t, `"msg":"draining"`); strings.Contains(line, `"timeout":"never"`) != (tc.timeout == "0s") {
					t.Errorf("--drain-timeout %s: %s", tc.timeout, line)
				}
				echo1(t, c, "y")
				r.signal(syscall.SIGTERM)
			}
			if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %d bytes, %v; want a reset", n, err)
			}
			if code := r.wait(); code != exitOK {
				t.Errorf("exit code %d", code)
			}
			if line := r.ended(t, 1); line["end_to_target"] != "stopped" || line["end_to_client"] != "stopped" {
				t.Errorf("ended with %v", line)
			}
		})
	}
}

// Where nothing is open, nothing is cut, however little time a drain has.
func TestNothingToCut(t *testing.T) {
	testnet.Leaks(t)
	r := startRelay(t, nil, "--drain-timeout", "1ns", "127.0.0.1:0", echoServer(t))
	r.stop(t)
	if log := r.stderr.all(); !strings.Contains(log, "relay ended") || strings.Contains(log, "cutting connections") {
		t.Errorf("the log is\n%s", log)
	}
}

// A client that no target answers to is reset, and disturbs nobody.
func TestNoTargetReached(t *testing.T) {
	testnet.Leaks(t)
	path := filepath.Join(t.TempDir(), "target")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	r := startRelay(t, nil, "127.0.0.1:0", "unix:"+path)
	c := r.dial(t)
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	_ = ln.Close()

	if doomed, err := net.Dial("tcp", r.addr); err == nil {
		_, err = doomed.Read(make([]byte, 1))
		_ = doomed.Close()
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v, want a reset", err)
		}
	}
	line := parse(t, r.stderr.await(t, `"msg":"no target reached"`))
	if line["level"] != "WARN" || !strings.Contains(fmt.Sprint(line["error"]), "unix:"+path) {
		t.Errorf("line %v", line)
	}
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Errorf("the other connection was disturbed: %v", err)
	}
	_ = c.Close()
	_ = server.Close()
	r.stop(t)
}

// An engine that is named runs, or the relay does not start and says what is
// missing; it never runs as another.
func TestEngines(t *testing.T) {
	for _, user := range []uint32{0, 65534} {
		for _, engine := range []string{"auto", "copy", "splice", "sockmap", "wire"} {
			t.Run(fmt.Sprintf("%s as %d", engine, user), func(t *testing.T) {
				testnet.Need(t, "root")
				testnet.Leaks(t)
				target := echoServer(t)
				cmd := command(t, "relay", "--engine", engine, "--log-format", "json", "127.0.0.1:0", target)
				if user != 0 {
					cmd.Path = forEverybody(t, cmd.Path)
					cmd.Dir = "/"
					cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
				}
				r := &relay{process: start(t, cmd)}
				select {
				case <-r.exited:
					if engine == "auto" || engine == "copy" || engine == "splice" {
						t.Fatal("it has ended")
					}
					if code := r.wait(); code != exitFailed {
						t.Errorf("exit code %d, want %d", code, exitFailed)
					}
					if s := r.stderr.all(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "--engine "+engine) {
						t.Errorf("printed %q, want a line about the engine", s)
					} else if user != 0 && (!strings.Contains(s, "CAP_BPF") || !strings.Contains(s, "CAP_NET_ADMIN") || len(s) > 200) {
						t.Errorf("printed %q, want the missing capabilities, and no more", s)
					}
					return
				case <-r.stdout.has("listening on "):
				}
				r.addr = strings.TrimPrefix(r.stdout.await(t, "listening on "), "listening on ")
				c := r.dial(t)
				echo1(t, c, "12345")
				_ = c.Close()
				line := r.ended(t, 1)
				if line["bytes_to_client"] != 5.0 {
					t.Errorf("line %v", line)
				}
				if engine == "copy" && (line["engine"] != "copy" || line["engine_reason"] != "requested") {
					t.Errorf("line %v", line)
				}
				r.stop(t)
			})
		}
	}
}

// What docs/wire.md says the engine needs is enough, and what is missing is named.
func TestWireCapabilities(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	// linux/capability.h
	all := map[string]uintptr{"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_PERFMON": 38, "CAP_BPF": 39}
	for _, missing := range []string{"", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON", "CAP_BPF"} {
		t.Run("without "+missing, func(t *testing.T) {
			testnet.Leaks(t)
			cmd := command(t, "relay", "--engine", "wire", "127.0.0.1:0", echoServer(t))
			cmd.Path = forEverybody(t, cmd.Path)
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			for name, bit := range all {
				if name != missing {
					cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, bit)
				}
			}
			r := &relay{process: start(t, cmd)}
			select {
			case <-r.exited:
				if code := r.wait(); missing == "" || code != exitFailed {
					t.Errorf("exit code %d; %s", code, r.stderr.all())
				}
				if s := r.stderr.all(); strings.Count(s, "CAP_") != 1 || !strings.Contains(s, missing+" missing") {
					t.Errorf("printed %q, want %s and no other", s, missing)
				}
			case <-r.stdout.has("listening on "):
				if missing != "" {
					t.Error("it has started")
				}
				r.stop(t)
			}
		})
	}
}

// forEverybody copies a program to where other users may run it.
func forEverybody(t *testing.T, path string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "spliced-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, "spliced"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		t.Fatal(err)
	}
	return to.Name()
}

// More clients than the limit of open files has room for wait for their turn;
// those that are served are not disturbed, and no CPU is burnt.
func TestMoreClientsThanFiles(t *testing.T) {
	for _, maxConns := range []string{"0", "1000"} {
		t.Run("--max-conns="+maxConns, func(t *testing.T) {
			testnet.Leaks(t)
			const files, clients = 70, 60
			r := startRelay(t, []string{fmt.Sprintf("%s=%d", openFiles, files)}, "--max-conns", maxConns, "127.0.0.1:0", echoServer(t))
			if maxConns != "0" {
				r.stderr.await(t, "the limit of open files has no room")
			}
			conns := make([]net.Conn, clients)
			for i := range conns {
				conns[i] = r.dial(t)
				if _, err := io.WriteString(conns[i], "hello"); err != nil {
					t.Fatal(err)
				}
			}
			line := parse(t, r.stderr.await(t, `"msg":"new connections have to wait"`))
			if line["error"] != "connection limit reached" || line["listen"] != r.addr {
				t.Errorf("line %v", line)
			}
			expectHello(t, conns[0])
			expectQuiet(t, r, conns[0])
			// Each gets its turn as others end.
			_ = conns[0].Close()
			for _, c := range conns[1:] {
				expectHello(t, c)
				_ = c.Close()
			}
			r.ended(t, clients)
			if strings.Contains(r.stderr.all(), "no target reached") {
				t.Error("a client was turned away")
			}
			r.stop(t)
		})
	}
}

// The system, or the process, runs out of descriptors earlier than expected:
// at once with a client, or when it is to be dialled for.
func TestDescriptorShortage(t *testing.T) {
	for _, left := range []int{0, 1} { // to accept with, to dial with
		t.Run(fmt.Sprintf("%d left", left), func(t *testing.T) {
			testnet.Leaks(t)
			r := startRelay(t, nil, "--connect-timeout", "1h", "127.0.0.1:0", echoServer(t))
			var conns []net.Conn
			for range 4 {
				c := r.dial(t)
				echo1(t, c, "hello")
				conns = append(conns, c)
			}
			was := r.limitFiles(t, r.limitFor(t, left))
			late := r.dial(t) // by the kernel alone
			if _, err := io.WriteString(late, "hello"); err != nil {
				t.Fatal(err)
			}
			line := parse(t, r.stderr.await(t, `"msg":"new connections have to wait"`))
			if !strings.Contains(fmt.Sprint(line["error"]), "too many open files") {
				t.Errorf("line %v", line)
			}
			for _, c := range conns {
				expectQuiet(t, r, c)
			}
			r.limitFiles(t, was)
			expectHello(t, late)
			if strings.Contains(r.stderr.all(), "no target reached") {
				t.Error("a client was turned away")
			}
			for _, c := range append(conns, late) {
				_ = c.Close()
			}
			r.ended(t, len(conns)+1)
			r.stop(t)
		})
	}
}

func expectHello(t *testing.T, c net.Conn) {
	t.Helper()
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Fatalf("read %q, %v", b, err)
	}
}

// expectQuiet uses a connection for a while, during which the relay has little
// else to do.
func expectQuiet(t *testing.T, r *relay, c net.Conn) {
	t.Helper()
	const window, pings = 500 * time.Millisecond, 10
	busy, since := cpuTime(t, r.cmd.Process.Pid), time.Now()
	for range pings {
		echo1(t, c, "ping")
		time.Sleep(window / pings) // what is measured, not a wait for something
	}
	if busy = cpuTime(t, r.cmd.Process.Pid) - busy; busy > time.Since(since)/2 {
		t.Errorf("%v of CPU time in %v", busy, time.Since(since))
	}
}

// limitFor returns the limit of open files that leaves so many free.
func (r *relay) limitFor(t *testing.T, free int) uint64 {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	open := make(map[string]bool)
	for _, e := range entries {
		open[e.Name()] = true
	}
	// The limit is one more than the largest number that a new file may get.
	for n := uint64(0); ; n++ {
		if open[strconv.FormatUint(n, 10)] {
			continue
		}
		if free == 0 {
			return n
		}
		free--
	}
}

// limitFiles changes the relay's limit of open files and returns what it was.
func (r *relay) limitFiles(t *testing.T, n uint64) uint64 {
	t.Helper()
	var was syscall.Rlimit
	limit := syscall.Rlimit{Cur: n, Max: hardLimit(t)}
	_, _, errno := syscall.Syscall6(syscall.SYS_PRLIMIT64, uintptr(r.cmd.Process.Pid), syscall.RLIMIT_NOFILE,
		uintptr(unsafe.Pointer(&limit)), uintptr(unsafe.Pointer(&was)), 0, 0)
	if errno != 0 {
		t.Fatalf("prlimit64: %v", errno)
	}
	return was.Cur
}

func hardLimit(t *testing.T) uint64 {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return limit.Max
}

// cpuTime returns the CPU time that a process has used.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// utime and stime are the fields 14 and 15; the second is in parentheses
	// and may have spaces.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100)
}

// What a killed relay leaves behind does not keep the next from starting.
func TestStaleSocketFile(t *testing.T) {
	testnet.Leaks(t)
	path := filepath.Join(t.TempDir(), "s")
	first := startRelay(t, nil, "unix:"+path, echoServer(t))
	first.signal(syscall.SIGKILL)
	first.wait()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	second := startRelay(t, nil, "unix:"+path, echoServer(t))
	if second.addr != "unix:"+path {
		t.Errorf("listening on %s", second.addr)
	}
	c := second.dial(t)
	echo1(t, c, "x")
	_ = c.Close()
	if line := second.ended(t, 1); line["client"] != "unix" {
		t.Errorf("client is %v", line["client"])
	}
	second.stop(t)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left behind: %v", err)
	}
}

// systemd passes sockets and wants to be told.
func TestSystemd(t *testing.T) {
	testnet.Leaks(t)
	notify := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	_ = manager.SetReadDeadline(time.Now().Add(patience))
	state := func() string {
		b := make([]byte, 100)
		n, err := manager.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}

	for _, listen := range []string{"systemd", "127.0.0.1:1"} {
		var files []*os.File
		var addrs []string
		for range 2 {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			f, err := ln.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			files, addrs = append(files, f), append(addrs, ln.Addr().String())
		}
		inner := command(t, "relay", "--log-format", "json", listen, echoServer(t))
		cmd := command(t)
		// LISTEN_PID is known once the process is there.
		cmd.Path = "/bin/sh"
		cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, inner.Path}, inner.Args[1:]...)
		cmd.Env = append(inner.Env, "LISTEN_FDS=2", "NOTIFY_SOCKET="+notify)
		cmd.ExtraFiles = files
		r := &relay{process: start(t, cmd)}
		for _, addr := range addrs {
			r.stdout.await(t, "listening on "+addr)
			r.addr = addr
			c := r.dial(t)
			echo1(t, c, "x")
			_ = c.Close()
		}
		if s := state(); s != "READY=1" {
			t.Errorf("told %q, want READY=1", s)
		}
		r.signal(syscall.SIGTERM)
		if s := state(); s != "STOPPING=1" {
			t.Errorf("told %q, want STOPPING=1", s)
		}
		if code := r.wait(); code != exitOK {
			t.Errorf("exit code %d", code)
		}
	}
}

func TestSystemdPassesSomethingElse(t *testing.T) {
	testnet.Leaks(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	// A stream socket that does not listen: accept(2) would fail for ever.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	silent := os.NewFile(uintptr(fd), "socket")
	defer silent.Close()
	for name, f := range map[string]*os.File{"no socket": null, "no listener": silent} {
		for _, target := range []string{"127.0.0.1:1", "localhost:1"} { // both ways of accepting
			t.Run(name+"/"+target, func(t *testing.T) {
				inner := command(t, "relay", "systemd", target)
				cmd := command(t)
				cmd.Path = "/bin/sh"
				cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, inner.Path}, inner.Args[1:]...)
				cmd.Env = append(inner.Env, "LISTEN_FDS=1")
				cmd.ExtraFiles = []*os.File{f}
				p := start(t, cmd)
				if code := p.wait(); code != exitFailed {
					t.Errorf("exit code %d, want %d", code, exitFailed)
				}
				if s := p.stderr.all(); !strings.Contains(s, "descriptor 3") || !strings.Contains(s, "ListenStream=") {
					t.Errorf("printed %q", s)
				}
			})
		}
	}
}
