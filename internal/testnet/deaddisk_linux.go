package testnet

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

const fuse = "/dev/fuse"

// DeadDisk mounts a file system that never answers, as one of the network whose server is gone,
// and returns where. Whoever touches a file there waits, until revive has them get an error, or
// the test ends. It needs root and FUSE: see [Need].
func DeadDisk(t TB) (dir string, revive func()) {
	t.Helper()
	Need(t, "root", "fuse")
	dev, err := os.OpenFile(fuse, os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("%v", err)
	}
	revive = sync.OnceFunc(func() { _ = dev.Close() })
	t.Cleanup(revive)
	if dir, err = os.MkdirTemp("", "spliced-test-"); err != nil {
		t.Fatalf("make a directory: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("%v", err)
		}
	})
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev.Fd())
	if err := syscall.Mount("dead", dir, "fuse", 0, options); err != nil {
		t.Fatalf("mount: %v", os.NewSyscallError("mount", err))
	}
	t.Cleanup(func() {
		revive() // else the directory could not be looked at
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", os.NewSyscallError("umount", err))
		}
	})
	return dir, revive
}
