package sys

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Capability is one of capabilities(7).
type Capability struct {
	Name string
	bit  int
	root bool // CAP_SYS_ADMIN stands for it
}

// The capabilities of BPF.
var (
	CapBPF      = Capability{"CAP_BPF", unix.CAP_BPF, true}
	CapPerfmon  = Capability{"CAP_PERFMON", unix.CAP_PERFMON, true}
	CapNetAdmin = Capability{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, false}
	CapNetRaw   = Capability{"CAP_NET_RAW", unix.CAP_NET_RAW, false}
	CapSysAdmin = Capability{"CAP_SYS_ADMIN", unix.CAP_SYS_ADMIN, false}
)

// Because puts those of the needed capabilities that the calling thread lacks
// before the errno of err. Without any, or where that can't be found out, it
// returns err.
func Because(err error, needed ...Capability) error {
	caps, capErr := GetCapabilities()
	if capErr != nil {
		return err
	}
	has := func(bit int) bool { return caps.Effective&(1<<bit) != 0 }
	var names []string
	for _, c := range needed {
		if !has(c.bit) && !(c.root && has(unix.CAP_SYS_ADMIN)) {
			names = append(names, c.Name)
		}
	}
	if names == nil {
		return err
	}
	// The loader's error is long, and advises about limits of memory.
	var errno syscall.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	return fmt.Errorf("%s missing: %w", strings.Join(names, ", "), err)
}
