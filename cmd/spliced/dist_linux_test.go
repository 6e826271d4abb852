package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
)

// systemd understands every line of the unit and finds it well locked up; its user and
// directory can be made.
func TestUnit(t *testing.T) {
	testnet.Need(t, "systemd", "root")
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	text, err := os.ReadFile("../../dist/spliced.service")
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(dir, "spliced.service")
	installed := strings.Replace(string(text), "ExecStart=/usr/bin/spliced ", "ExecStart="+exe+" ", 1)
	if installed == string(text) {
		t.Error("the unit does not start /usr/bin/spliced")
	}
	if err := os.WriteFile(unit, []byte(installed), 0o600); err != nil {
		t.Fatal(err)
	}
	// A key that systemd does not know is a warning, and no failure.
	if out := run("systemd-analyze", "verify", unit); strings.Contains(out, "spliced.service") {
		t.Errorf("systemd says of the unit:\n%s", out)
	}
	run("systemd-analyze", "security", "--offline=true", "--threshold=25", unit) // 2.5 of 10

	// Also with what the engine wire takes.
	wire, err := os.ReadFile("../../dist/spliced-wire.conf")
	if err == nil {
		err = errors.Join(os.Mkdir(unit+".d", 0o755), os.WriteFile(filepath.Join(unit+".d", "wire.conf"), wire, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	if out := run("systemd-analyze", "verify", unit); strings.Contains(out, "spliced.service") {
		t.Errorf("systemd says of the unit with spliced-wire.conf:\n%s", out)
	}
	if out := run("systemd-analyze", "security", "--offline=true", "--threshold=25", unit); !strings.Contains(out, "✗ CapabilityBoundingSet=~CAP_BPF ") {
		t.Errorf("spliced-wire.conf was not read:\n%s", out)
	}

	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := func(name string) string {
		t.Helper()
		p, err := filepath.Abs(filepath.Join("../../dist", name))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	run("systemd-sysusers", "--root="+root, path("spliced.sysusers.conf"))
	if b, err := os.ReadFile(filepath.Join(root, "etc/passwd")); err != nil || !strings.HasPrefix(string(b), "spliced:") {
		t.Errorf("passwd: %q, %v", b, err)
	}
	run("systemd-tmpfiles", "--create", "--root="+root, path("spliced.tmpfiles.conf"))
	if info, err := os.Stat(filepath.Join(root, "etc/spliced")); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("/etc/spliced: %v, %v", info, err)
	}
}
