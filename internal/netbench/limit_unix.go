//go:build unix

package netbench

import (
	"fmt"
	"syscall"
)

// raiseDescriptorLimit lets the processes that are started from here on open
// as many files as this user may. restore takes it back.
func raiseDescriptorLimit() (restore func(), err error) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		return nil, fmt.Errorf("read the limit of open files: %w", err)
	}
	raised := before
	raised.Cur = raised.Max
	// Asked for by name, the limit is passed on; Go's own raise at the start is not.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return nil, fmt.Errorf("raise the limit of open files: %w", err)
	}
	return func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) }, nil // lowering is always allowed
}

// descriptorLimit is how many files this user may have open in a process.
func descriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		const everywhere = 1024
		return everywhere
	}
	return int(min(limit.Max, 1<<20))
}
