package wire

import (
	"fmt"
	"os"
	"runtime"

	"github.com/spliced-io/spliced/internal/sys"
)

const ownNamespace = "/proc/thread-self/ns/net"

// A namespace is the network namespace of the thread that made it.
type namespace struct{ file *os.File }

func currentNamespace() (namespace, error) {
	f, err := os.Open(ownNamespace)
	if err != nil {
		return namespace{}, fmt.Errorf("open network namespace: %w", err)
	}
	return namespace{f}, nil
}

func (ns namespace) close() {
	if ns.file != nil {
		_ = ns.file.Close()
	}
}

// do runs f inside the namespace. It must be the last that the goroutine does:
// a thread that had to be moved is given up with it.
func (ns namespace) do(f func() error) error {
	runtime.LockOSThread()
	here, err := os.Stat(ownNamespace)
	if err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	there, err := ns.file.Stat()
	if err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	if os.SameFile(here, there) {
		defer runtime.UnlockOSThread()
	} else if err := sys.SetNetns(int(ns.file.Fd())); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return f()
}
