package netbench

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// callCounter counts the system calls and the context switches of a family,
// those of processes and threads that it starts and ends meanwhile too. While
// it is open every system call on the machine takes a little longer.
type callCounter struct{ syscalls, switches []int }

// syscallTracepoint is what [countCalls] needs; it fails where this user can't
// count.
func syscallTracepoint() (uint64, error) {
	id, err := sys.TracepointID("raw_syscalls/sys_enter")
	if err != nil {
		return 0, fmt.Errorf("find the tracepoint: %w", err)
	}
	fd, err := sys.OpenCounter(id, 0)
	if err != nil {
		return 0, fmt.Errorf("open a counter: %w", err)
	}
	return id, sys.Close(fd)
}

// countCalls starts counting.
func countCalls(tracepoint uint64, f *family) (_ *callCounter, err error) {
	c := &callCounter{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	pids, err := f.pids()
	if err != nil {
		return nil, err
	}
	open := func(fds *[]int, open func() (int, error)) error {
		fd, err := open()
		if errors.Is(err, syscall.ESRCH) {
			return nil // it has just ended
		}
		if err == nil {
			*fds = append(*fds, fd)
		}
		return os.NewSyscallError("perf_event_open", err)
	}
	for _, pid := range pids {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // gone: nothing to count
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				continue
			}
			err = open(&c.syscalls, func() (int, error) { return sys.OpenCounter(tracepoint, tid) })
			if err == nil {
				err = open(&c.switches, func() (int, error) { return sys.OpenSwitchCounter(tid) })
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// count returns how many there were so far.
func (c *callCounter) count() (syscalls, switches uint64, err error) {
	if syscalls, err = sumCounters(c.syscalls); err == nil {
		switches, err = sumCounters(c.switches)
	}
	return syscalls, switches, err
}

func sumCounters(fds []int) (sum uint64, err error) {
	for _, fd := range fds {
		n, err := sys.ReadCounter(fd)
		if err != nil {
			return 0, os.NewSyscallError("read", err)
		}
		sum += n
	}
	return sum, nil
}

func (c *callCounter) close() {
	for _, fd := range append(c.syscalls, c.switches...) {
		_ = sys.Close(fd)
	}
	c.syscalls, c.switches = nil, nil
}
