//go:build unix

package netbench

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// claim marks a file or directory as in use. The lock ends with the process,
// however that ends, and is seen from other PID namespaces too: what carries no
// lock has been left behind. It is inherited by nobody, as Go's files are
// closed on exec.
func claim(f *os.File) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// claimed is claim's error when somebody else has it.
func claimed(err error) bool { return errors.Is(err, syscall.EWOULDBLOCK) }

// abandoned opens and claims what this user's earlier run has left at path. It
// returns nil if it is not for us to take away.
func abandoned(path string) *os.File {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() && !info.Mode().IsRegular() {
		return nil
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	if claim(f) != nil {
		f.Close()
		return nil
	}
	return f
}
