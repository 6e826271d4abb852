package testnet

import (
	"os"

	"github.com/spliced-io/spliced/internal/sys"
)

// BPFFS mounts a BPF file system for the test, and returns where. It needs root.
func BPFFS(t TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "spliced-test-")
	if err != nil {
		t.Fatalf("make a directory: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("%v", err)
		}
	})
	if err := sys.MountBPF(dir); err != nil {
		t.Fatalf("mount a BPF file system: %v", err)
	}
	t.Cleanup(func() {
		if err := sys.Unmount(dir); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}
