package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// closedPort returns an address that nobody listens at: it stays taken by a
// socket that does not listen.
func closedPort(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*syscall.SockaddrInet4).Port}).String()
}

func TestRunMetrics(t *testing.T) {
	testnet.Leaks(t)
	echo, closed := echoServer(t), closedPort(t)
	d := runDaemon(t, "metrics: 127.0.0.1:0\nlisteners:\n"+
		"  good: {address: 127.0.0.1:0, engine: copy, upstream: good}\n"+
		"  bad: {address: 127.0.0.1:0, upstream: bad}\n"+
		"  none: {address: 127.0.0.1:0, routes: {reject: true}}\n"+
		"upstreams:\n  good: {servers: '"+echo+"'}\n  bad: {servers: '"+closed+"'}\n")
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	url := regexp.MustCompile(`url=(http://[^ ]+)/metrics`).FindStringSubmatch(d.stderr.await(t, "msg=metrics"))
	if url == nil {
		t.Fatal("no URL")
	}
	read := func(path string) (string, int) {
		t.Helper()
		r, err := client.Get(url[1] + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b), r.StatusCode
	}
	dial := func(listener string) net.Conn {
		t.Helper()
		c, err := net.DialTimeout("tcp", d.addr(t, listener), patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		return c
	}
	expect := func(page string, lines ...string) {
		t.Helper()
		for _, line := range lines {
			if !strings.Contains(page, line+"\n") {
				t.Errorf("no line %s", line)
			}
		}
		if t.Failed() {
			t.Fatal(page)
		}
	}

	live := dial("good")
	echo1(t, live, "hello")
	if page, code := read("/connections"); code != http.StatusNotFound {
		t.Errorf("clients are named to anybody: %d, %s", code, page)
	}
	page, _ := read("/metrics")
	expect(page,
		`spliced_listener_accepted_total{listener="good"} 1`,
		`spliced_listener_open{listener="good"} 1`,
		`spliced_listener_joined{engine="copy",listener="good"} 1`,
		`spliced_listener_bytes_total{direction="to_target",engine="copy",listener="good"} 5`,
		`spliced_listener_bytes_total{direction="to_client",engine="splice",listener="good"} 0`,
		`spliced_server_active{server="`+echo+`",upstream="good"} 1`,
		`spliced_server_bytes_total{direction="to_client",server="`+echo+`",upstream="good"} 5`,
		`spliced_server_state{server="`+echo+`",state="unchecked",upstream="good"} 1`,
		`spliced_listener_connect_seconds_count{listener="good"} 1`)

	for _, listener := range []string{"bad", "none"} {
		// The reset may come before the dial returns, or after.
		c, err := net.DialTimeout("tcp", d.addr(t, listener), patience)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(patience))
			_, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v, want a reset", listener, err)
		}
	}
	_ = live.(*net.TCPConn).CloseWrite()
	_, _ = io.ReadAll(live)
	d.stderr.await(t, "connection ended")
	if line := d.stderr.await(t, "listener=bad"); !strings.Contains(line, "reason=connect-refused") {
		t.Errorf("no reason in %s", line)
	}
	d.stderr.await(t, "reason=rejected")
	page, _ = read("/metrics")
	expect(page,
		`spliced_listener_failures_total{listener="bad",reason="connect-refused"} 1`,
		`spliced_listener_failures_total{listener="none",reason="rejected"} 1`,
		`spliced_server_connect_failures_total{reason="connect-refused",server="`+closed+`",upstream="bad"} 1`,
		`spliced_listener_joined{engine="copy",listener="good"} 0`,
		`spliced_listener_bytes_total{direction="to_target",engine="copy",listener="good"} 5`,
		`spliced_server_bytes_total{direction="to_target",server="`+echo+`",upstream="good"} 5`,
		`spliced_listener_engines_total{engine="copy",listener="good",reason="requested"} 1`,
		`spliced_listener_directions_ended_total{direction="to_target",listener="good",reason="eof"} 1`,
		`spliced_listener_duration_seconds_count{listener="good"} 1`)
	docs, err := os.ReadFile("../../docs/run.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (spliced_(?:listener|upstream|server)_\S+)`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(string(docs), "`"+m[1]+"`") {
			t.Errorf("metric %s is not in docs/run.md", m[1])
		}
	}

	if text, code := read("/healthz"); code != http.StatusOK || text != "ok\n" {
		t.Errorf("/healthz: %d %q", code, text)
	}
	held := dial("good") // keeps the drain from its end
	echo1(t, held, "x")
	d.signal(syscall.SIGTERM)
	d.stderr.await(t, "draining")
	eventuallyDraining := func() error {
		if _, code := read("/healthz"); code != http.StatusServiceUnavailable {
			return net.ErrClosed
		}
		return nil
	}
	eventually(t, eventuallyDraining)
	_ = held.Close()
	if code := d.wait(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}
