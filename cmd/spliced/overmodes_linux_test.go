package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// Root comes to what is another user's after it has given up capabilities as before: to a
// server's unix socket, to the key that a reload and an upgrade read again, and to the directory
// in which it has to remove its own socket. It keeps nothing for files that are its own.
func reachesOthers(t *testing.T, binary string) {
	const dacOverride, dacReadSearch = 1 << 1, 1 << 2
	const nobody = 65534
	testnet.Need(t, "override")
	own := func(t *testing.T, path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		listener string // DIR is another user's
		key      os.FileMode
		server   string
		user     string
		want     uint64
		told     []string // by check
	}{
		"server":         {"127.0.0.1:0", 0o644, "unix:DIR/o.sock", "", dacOverride, []string{"wanted CAP_DAC_OVERRIDE to connect to DIR/o.sock of upstream web, whoever's it is; without it the modes of files decide"}},
		"key":            {"127.0.0.1:0", 0o600, "127.0.0.1:1", "", dacReadSearch, []string{"wanted CAP_DAC_READ_SEARCH to read DIR/a.test.key again, which is another user's; without it the modes of files decide"}},
		"listener":       {"unix:DIR/l.sock", 0o644, "127.0.0.1:1", "", dacOverride, []string{"wanted CAP_DAC_OVERRIDE to remove sockets from DIR, which is another user's; without it the modes of files decide"}},
		"all":            {"unix:DIR/l.sock", 0o600, "unix:DIR/o.sock", "", dacOverride | dacReadSearch, []string{"CAP_DAC_OVERRIDE to connect", "CAP_DAC_READ_SEARCH to read"}},
		"nothing":        {"127.0.0.1:0", 0o644, "127.0.0.1:1", "", 0, nil},
		"that very user": {"127.0.0.1:0", 0o600, "unix:DIR/o.sock", "user: \"65534\"\n", 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := dirForAll(t)
			others := filepath.Join(dir, "o")
			if err := os.Mkdir(others, 0o700); err != nil {
				t.Fatal(err)
			}
			cert, key := writeCertificate(t, others, "a.test")
			own(t, cert, 0o644)
			own(t, key, tt.key)
			server, err := net.Listen("unix", filepath.Join(others, "o.sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			own(t, filepath.Join(others, "o.sock"), 0o600)
			closed := os.FileMode(0o755) // a closed directory is more than its files
			if tt.want == dacOverride|dacReadSearch {
				closed = 0o700
			}
			own(t, others, closed)
			go func() {
				for {
					c, err := server.Accept()
					if err != nil {
						return
					}
					_, _ = io.Copy(c, c)
					c.Close()
				}
			}()
			replace := func(s string) string { return strings.ReplaceAll(s, "DIR", others) }
			text := replace(fmt.Sprintf("%slisteners:\n  web: {address: %q, engine: splice, upstream: web}\n  tls: {address: '127.0.0.1:0', engine: copy, upstream: web, tls: {certificates: {certificate: DIR/a.test.crt, key: DIR/a.test.key}}}\nupstreams:\n  web: {servers: %q}\n",
				tt.user, tt.listener, tt.server))
			d := &daemonProcess{config: filepath.Join(dir, "c.yaml")}
			if err := os.WriteFile(d.config, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(binary, "check", d.config).CombinedOutput()
			if err != nil || tt.told == nil && strings.Contains(string(out), "wanted") {
				t.Errorf("check: %v, %s", err, out)
			}
			for _, want := range tt.told {
				if !strings.Contains(string(out), replace(want)) {
					t.Errorf("check: %s, want %q", out, replace(want))
				}
			}
			d.process = start(t, exec.Command(binary, "run", "-c", d.config))
			t.Cleanup(func() {
				for _, pid := range d.generations() {
					if pid != d.cmd.Process.Pid {
						_ = syscall.Kill(pid, syscall.SIGKILL)
					}
				}
			})
			ask := func() {
				t.Helper()
				if !strings.HasPrefix(tt.server, "unix:") {
					return
				}
				c, err := net.Dial("tcp", d.addr(t, "tls"))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				echo1(t, tls.Client(c, &tls.Config{InsecureSkipVerify: true}), "through")
			}
			overGenerations(t, d, func(n int) {
				got := permitted(t, fmt.Sprintf("/proc/%d/status", d.last())) & (dacOverride | dacReadSearch)
				if got != tt.want {
					t.Errorf("process %d has %#x of the two, want %#x", n+1, got, tt.want)
				}
				ask()
			})
			d.stopLast(t)
			if _, err := os.Lstat(filepath.Join(others, "l.sock")); !os.IsNotExist(err) {
				t.Errorf("the listener's socket after the end: %v", err)
			}
		})
	}
}
