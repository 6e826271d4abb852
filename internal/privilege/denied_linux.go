package privilege

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// What is done with a file, for [Denied].
const (
	Read  = 4 // R_OK
	Enter = 3 // W_OK, X_OK: make files in a directory, and remove them
)

// overModes are the capabilities to which the modes of files are nothing.
var overModes = []string{"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}

// Denied returns those of the files that this process may access with the capabilities
// that it has, and could not with CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH given up. The kernel
// is asked (faccessat2(2), Linux 5.8; before that: none), so that lists of access,
// links and the directories on the way are known to it. It must not run beside [Drop].
func Denied(access uint32, files ...string) ([]string, error) {
	bits, err := set(overModes)
	if err != nil {
		return nil, err
	}
	var denied []string
	done := make(chan error)
	go func() {
		// The thread alone gives them up for the moment. If they can't be had back it
		// ends with this goroutine, which is still locked to it.
		runtime.LockOSThread()
		have, err := sys.GetCapabilities()
		if err != nil {
			done <- fmt.Errorf("capget: %w", err)
			return
		}
		if have.Effective&bits == 0 {
			runtime.UnlockOSThread()
			done <- nil
			return
		}
		files = slices.DeleteFunc(slices.Clone(files), func(f string) bool { return sys.Access(f, access) != nil })
		less := have
		less.Effective &^= bits
		if err := sys.SetThreadCapabilities(less); err != nil {
			done <- fmt.Errorf("capset: %w", err)
			return
		}
		for _, f := range files {
			if errors.Is(sys.Access(f, access), syscall.EACCES) {
				denied = append(denied, f)
			}
		}
		if err := sys.SetThreadCapabilities(have); err != nil {
			done <- fmt.Errorf("capset: %w", err)
			return
		}
		runtime.UnlockOSThread()
		done <- nil
	}()
	err = <-done
	return denied, err
}
