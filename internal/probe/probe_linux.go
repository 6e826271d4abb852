package probe

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// patience bounds each wait for bytes that this very process has sent.
const patience = time.Second

func run(ctx context.Context, r *Report) {
	r.UID = os.Getuid()
	r.Kernel, _ = sys.Release() // fails for a bad pointer only

	var probes []func() Capability
	for _, s := range sources {
		probes = append(probes, func() Capability { return spliceFrom(s) })
	}
	for _, s := range sinks {
		probes = append(probes, func() Capability { return spliceTo(s) })
	}
	probes = append(probes,
		func() Capability { return filePages("file", tempDir()) },
		func() Capability { return filePages("tmpfs", tmpfsDir) },
		sendfilePages, SocketPages, userPages,
		func() Capability { return copyRange("file-to-file", tempDir(), tempDir()) },
		func() Capability { return copyRange("tmpfs-to-file", tmpfsDir, tempDir()) },
		pipeDefault, pipeGrant, pipeCount, pipeCliff,
		mptcp, tcpRepair, kernelTLS,
	)
	for _, p := range bpfPrograms {
		probes = append(probes, func() Capability { return bpfProgram(p.name, p.typ) })
	}
	for _, m := range bpfMaps {
		probes = append(probes, func() Capability { return bpfMap(m.name, m.spec) })
	}
	probes = append(probes,
		sockmapRedirect, sockmapSplice,
		func() Capability { return sockmapUnread("member", nil) },
		func() Capability { return sockmapUnread("program", passes) },
	)
	for _, p := range probes {
		if ctx.Err() != nil {
			return
		}
		r.Capabilities = append(r.Capabilities, p())
	}
}

// failed turns the error of the call that was probed into an answer: what the
// kernel refuses for what it is asked to do is a no, and everything else (no
// descriptors, no memory) says nothing about it.
func failed(name string, err error) Capability {
	var missing *missingError
	if errors.As(err, &missing) {
		return unknown(name, err.Error())
	}
	for _, e := range []error{
		syscall.EINVAL, syscall.ENOSYS, syscall.EPERM, syscall.EACCES, syscall.EOPNOTSUPP, syscall.EXDEV,
		syscall.EBADF, syscall.EPROTONOSUPPORT, syscall.ENOPROTOOPT, syscall.EAFNOSUPPORT, syscall.ESPIPE,
	} {
		if errors.Is(err, e) {
			return no(name, err.Error())
		}
	}
	return unknown(name, err.Error())
}

// missingError says that what a probe needs is not there.
type missingError struct{ err error }

func (e *missingError) Error() string { return "not measured: " + e.err.Error() }
func (e *missingError) Unwrap() error { return e.err }

func missing(err error) error {
	if err == nil {
		return nil
	}
	return &missingError{err}
}
