package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// As many connections as `spliced check` says fit the limit of open files, beside many
// listeners and checks of servers that don't answer.
func TestDescriptorBudget(t *testing.T) {
	const limit, addresses, servers = 300, 100, 30
	pit, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pit.Close()
	go func() {
		for {
			c, err := pit.Accept()
			if err != nil {
				return
			}
			defer c.Close() // at the end of the test
		}
	}()
	var text strings.Builder
	text.WriteString("listeners:\n  web:\n    upstream: web\n    engine: splice\n    address:\n")
	for i := range addresses {
		fmt.Fprintf(&text, "      - 127.0.1.%d:0\n", i+1)
	}
	fmt.Fprintf(&text, "upstreams:\n  web: {servers: %q}\n  mute:\n    health: {interval: 1m, timeout: 1m, expect: hello}\n    servers:\n", plainEcho(t))
	for i := range servers {
		fmt.Fprintf(&text, "      - 127.0.2.%d:%d\n", i+1, pit.Addr().(*net.TCPAddr).Port)
	}
	config := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	checked := command(t, "check", config)
	checked.Env = append(checked.Env, fmt.Sprintf("%s=%d", openFiles, limit))
	out, err := checked.Output()
	if err != nil {
		t.Fatal(err)
	}
	var room int
	_, said, _ := strings.Cut(string(out), "has room for ")
	if _, err := fmt.Sscanf(said, "%d connections", &room); err != nil || room < 20 {
		t.Fatalf("room for %d: %v\n%s", room, err, out)
	}
	d := runDaemon(t, text.String(), fmt.Sprintf("%s=%d", openFiles, limit))
	addr := d.addr(t, "web")
	descriptors := func() int {
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	for end := time.Now().Add(patience); descriptors() < addresses+servers; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, want those of %d listeners and %d checks", descriptors(), addresses, servers)
		}
	}
	message := strings.Repeat("x", 64<<10) // by a pipe, where there is one
	for i := range room {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, message); err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
		if _, err := io.ReadFull(c, make([]byte, len(message))); err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
	}
	if n := descriptors(); n > limit || n < 2*room+addresses {
		t.Errorf("%d descriptors for %d connections", n, room)
	}
	if log := d.stderr.all(); strings.Contains(log, "too many open files") || strings.Contains(log, "have to wait") {
		t.Errorf("a shortage:\n%s", log)
	}
}
