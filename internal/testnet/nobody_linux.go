package testnet

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// AsUser returns a command that runs a copy of this very program as another
// user, who has no privileges. It needs root.
func AsUser(t TB, id uint32, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp("", "spliced-test-")
	if err != nil {
		t.Fatalf("make a directory: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatalf("open the directory to all: %v", err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatalf("read this program: %v", err)
	}
	exe := filepath.Join(dir, "program")
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatalf("copy this program: %v", err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	return cmd
}
