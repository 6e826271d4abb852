package sys

import (
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a thread has used.
type Usage struct {
	User, System       time.Duration
	Voluntary, Forced  int64 // context switches
	MajFaults, Minflts int64
}

// ThreadUsage is getrusage(RUSAGE_THREAD) of the calling thread.
func ThreadUsage() (Usage, error) { return usage(unix.RUSAGE_THREAD) }

func usage(who int) (Usage, error) {
	var r unix.Rusage
	err := unix.Getrusage(who, &r)
	return Usage{
		User: time.Duration(r.Utime.Nano()), System: time.Duration(r.Stime.Nano()),
		Voluntary: int64(r.Nvcsw), Forced: int64(r.Nivcsw), MajFaults: int64(r.Majflt), Minflts: int64(r.Minflt),
	}, err
}

// ThreadID is gettid(2).
func ThreadID() int { return unix.Gettid() }

// UnshareFiles is unshare(2) with CLONE_FILES: the calling thread gets a table of
// descriptors of its own, with what is in it now. The goroutine must be locked
// to its thread, which must not serve another goroutine afterwards; what it
// opens from now on exists for it alone, and only it can close it.
func UnshareFiles() error { return unix.Unshare(unix.CLONE_FILES) }

// SetAffinity pins the calling thread to CPUs. The goroutine must be locked to
// its thread, which must not serve another goroutine afterwards.
func SetAffinity(cpus []int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	return unix.SchedSetaffinity(0, &set)
}

// SetNice sets the calling thread's niceness.
func SetNice(nice int) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, nice) }

// SetIOPriority sets the calling thread's I/O priority (ioprio_set(2)).
func SetIOPriority(class, level int) error {
	const who, classShift = 1, 13
	_, _, e := unix.Syscall(unix.SYS_IOPRIO_SET, who, 0, uintptr(class<<classShift|level))
	if e != 0 {
		return e
	}
	return nil
}
