package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/probe"
)

// A wrong command line is one line that names the bad value and what would be
// right, and exit code 2.
func TestUsageErrors(t *testing.T) {
	for _, tc := range []struct {
		args string
		want []string
	}{
		{"relay", []string{"listen"}},
		{"nonsense", []string{"nonsense", "--help"}},
		{"relay --nonsense :0", []string{"--nonsense"}},
		{"relay --idletimeout=1s :0", []string{"--idletimeout", "--idle-timeout"}},
		{"relay 8080", []string{`"8080"`, "host:port, :port or unix:/path"}},
		{"relay :http", []string{`"http"`, "0 to 65535"}},
		{"relay :99999", []string{`"99999"`, "0 to 65535"}},
		{"relay http://x:80", []string{"http://x:80", "host:port"}},
		{"relay unix:", []string{"unix:", "unix:/path"}},
		{"relay :0 db", []string{`"db"`, "host:port"}},
		{"relay :0 db:0", []string{`"db:0"`, "1 to 65535"}},
		{"relay :0 ok:1 d_b:x", []string{`"d_b:x"`, "host:port"}},
		{"relay --engine fast :0", []string{"fast", "auto", "copy", "splice", "sockmap", "wire"}},
		{"relay --idle-timeout 5 :0", []string{"--idle-timeout", `"5"`, "30s"}},
		{"relay --idle-timeout=-5s :0", []string{"--idle-timeout", `"-5s"`, "30s"}},
		{"relay --half-close-timeout x :0", []string{"--half-close-timeout", `"x"`, "30s"}},
		{"relay --max-lifetime x :0", []string{"--max-lifetime", `"x"`, "30s"}},
		{"relay --connect-timeout 0s :0", []string{"--connect-timeout", "5s"}},
		{"relay --drain-timeout x :0", []string{"--drain-timeout", `"x"`, "30s"}},
		{"relay --max-bytes lots :0", []string{"--max-bytes", `"lots"`, "64KiB"}},
		{"relay --max-bytes=-1 :0", []string{"--max-bytes", `"-1"`, "64KiB"}},
		{"relay --max-bytes -1 :0", []string{"--max-bytes", `"-1"`, "64KiB"}},
		{"relay --max-conns -5 :0", []string{"--max-conns", `"-5"`, "whole number"}},
		{"relay --idle-timeout -1s :0", []string{"--idle-timeout", `"-1s"`, "30s"}},
		{"relay --max-conns many :0", []string{"--max-conns", `"many"`, "whole number"}},
		{"relay --max-conns=-1 :0", []string{"--max-conns", `"-1"`, "whole number"}},
		{"relay --log-format xml :0", []string{"--log-format", "xml", "text", "json"}},
		{"relay --metrics 80 :0", []string{"--metrics", `"80"`, "host:port"}},
		{"relay --metrics unix:/x :0", []string{"--metrics", "unix:/x", "host:port"}},
		{"probe --xml", []string{"--xml"}},
		{"probe --pid 0", []string{"--pid 0", "number of a process"}},
		{"probe --pid x", []string{"--pid"}},
		{"probe --conn 127.0.0.1:1", []string{`"127.0.0.1:1"`, "two addresses with ports"}},
		{"probe --pid 1 --conn 127.0.0.1:1-127.0.0.1:2", []string{"--pid", "--conn"}},
		{"version now", []string{"now"}},
	} {
		t.Run(tc.args, func(t *testing.T) {
			stdout, stderr, code := execute(t, strings.Fields(tc.args)...)
			if code != exitUsage || stdout != "" {
				t.Errorf("exit code %d, want %d; printed %q", code, exitUsage, stdout)
			}
			if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "spliced: ") {
				t.Errorf("not one line: %q", stderr)
			}
			for _, want := range tc.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q does not say %q", stderr, want)
				}
			}
		})
	}
}

// What fails at run time is one line that says what and why, and exit code 1.
func TestStartFailures(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	dir := t.TempDir()
	busyFile := filepath.Join(dir, "busy")
	unixBusy, err := net.Listen("unix", busyFile)
	if err != nil {
		t.Fatal(err)
	}
	defer unixBusy.Close()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"port in use":            {[]string{busy.Addr().String()}, []string{busy.Addr().String(), "address already in use"}},
		"socket file in use":     {[]string{"unix:" + busyFile}, []string{busyFile, "another process listens on it"}},
		"file in the way":        {[]string{"unix:" + plain}, []string{plain, "no socket"}},
		"no such directory":      {[]string{"unix:" + filepath.Join(dir, "no", "s")}, []string{"no such file or directory"}},
		"not ours":               {[]string{"192.0.2.1:0"}, []string{"192.0.2.1:0", "assign requested address"}},
		"listen unresolvable":    {[]string{"no-such-host.invalid:0"}, []string{"no-such-host.invalid"}},
		"target unresolvable":    {[]string{"127.0.0.1:0", "no-such-host.invalid:80"}, []string{"no-such-host.invalid"}},
		"metrics port in use":    {[]string{"--metrics", busy.Addr().String(), "127.0.0.1:0"}, []string{busy.Addr().String(), "address already in use"}},
		"no socket from systemd": {[]string{"systemd"}, []string{"systemd", "LISTEN_FDS"}},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := execute(t, append([]string{"relay"}, tc.args...)...)
			if code != exitFailed || stdout != "" {
				t.Errorf("exit code %d, want %d; printed %q", code, exitFailed, stdout)
			}
			if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "spliced: ") {
				t.Errorf("not one line: %q", stderr)
			}
			for _, want := range tc.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q does not say %q", stderr, want)
				}
			}
		})
	}
	if _, err := os.Stat(plain); err != nil {
		t.Errorf("the file in the way was touched: %v", err)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"", "--help", "relay --help"} {
		stdout, stderr, code := execute(t, strings.Fields(args)...)
		if code != exitOK || stderr != "" || !strings.Contains(stdout, "Usage: spliced") {
			t.Errorf("spliced %s: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	stdout, stderr, code := execute(t, "version")
	if code != exitOK || stderr != "" || !strings.HasPrefix(stdout, "spliced ") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}

func TestProbeCommand(t *testing.T) {
	stdout, stderr, code := execute(t, "probe", "--json")
	if code != exitOK || stderr != "" {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	var report probe.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatal(err)
	}
	text, _, code := execute(t, "probe")
	if code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for _, c := range report.Capabilities {
		if !strings.Contains(text, c.Name) {
			t.Errorf("%s is in the JSON alone", c.Name)
		}
	}
}
