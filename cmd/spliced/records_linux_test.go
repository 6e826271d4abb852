package main

import (
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// A connection has a line as it is accepted, when it is joined, again and again while
// it lives, and at its end, all with its number.
func TestRecordsOfAConnection(t *testing.T) {
	testnet.Leaks(t)
	d := runDaemon(t, "log: {format: json, start: true, connect: true, interval: 20ms}\nlisteners:\n  echo: {address: 127.0.0.1:0, upstream: echo, engine: copy}\nupstreams:\n  echo: {servers: '"+echoServer(t)+"'}\n")
	c, err := net.DialTimeout("tcp", d.addr(t, "echo"), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	echo1(t, c, "hello")
	seen := len(d.stderr.all())
	eventually(t, func() error {
		if !strings.Contains(d.stderr.all()[seen:], "connection running") {
			return errors.New("no line while it lives")
		}
		return nil
	})
	_ = c.Close()
	d.stderr.await(t, `"msg":"connection ended"`)
	d.stop(t)
	last := make(map[string]map[string]any)
	var order []string
	for line := range strings.Lines(d.stderr.all()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		what, is := strings.CutPrefix(m["msg"].(string), "connection ")
		if !is {
			continue
		}
		if last[what] == nil {
			order = append(order, what)
		}
		last[what] = m
		if m["id"] != 1.0 || m["client"] != c.LocalAddr().String() || m["listener"] != "echo" {
			t.Errorf("%s is not of the connection", line)
		}
	}
	if got := strings.Join(order, " "); got != "accepted joined running ended" {
		t.Errorf("lines %q", got)
	}
	if m := last["joined"]; m["server"] == nil || m["connect_ms"] == 0.0 {
		t.Errorf("joined: %v", m)
	}
	if m := last["running"]; m["bytes_to_target"] != 5.0 || m["bytes_to_client"] != 5.0 || m["end_to_client"] != "running" || m["engine"] != "copy" {
		t.Errorf("running: %v", m)
	}
	if m := last["ended"]; m["bytes_to_target"] != 5.0 || m["end_to_client"] == "running" {
		t.Errorf("ended: %v", m)
	}
}

// A flood of failures is told by its first, and by how many there were.
func TestFloodOfFailures(t *testing.T) {
	testnet.Leaks(t)
	d := runDaemon(t, "log: {format: json}\nlisteners:\n  bad: {address: 127.0.0.1:0, upstream: bad}\nupstreams:\n  bad: {servers: '"+closedPort(t)+"'}\n")
	addr := d.addr(t, "bad")
	const flood = 200
	for range flood {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			continue // reset before the dial returned
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	d.stop(t)
	alone, summed, lines := 0, 0, 0
	for line := range strings.Lines(d.stderr.all()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		switch m["msg"] {
		case "no target reached":
			alone++
		case "no target reached, again":
			summed += int(m["repeated"].(float64))
			lines++
			if m["reason"] != "connect-refused" || m["upstream"] != "bad" || m["last_error"] == nil {
				t.Errorf("summed up by %s", line)
			}
		}
	}
	if alone+summed != flood || lines == 0 || alone > flood/2 {
		t.Errorf("%d told one by one, and %d in %d lines, of %d", alone, summed, lines, flood)
	}
}
