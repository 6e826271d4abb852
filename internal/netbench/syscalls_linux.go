package netbench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// syscallCounter counts the system calls of a process group. While it is open
// every system call on the machine takes a little longer.
type syscallCounter struct{ fds []int }

// syscallTracepoint is what [countSyscalls] needs; it fails where this user
// can't count.
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

// countSyscalls starts counting.
func countSyscalls(tracepoint uint64, group int) (_ *syscallCounter, err error) {
	c := &syscallCounter{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	groups, err := members([]int{group})
	if err != nil {
		return nil, err
	}
	for _, p := range groups[group] {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.pid))
		if err != nil {
			return nil, err
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(filepath.Base(task))
			if err != nil {
				continue
			}
			fd, err := sys.OpenCounter(tracepoint, tid)
			if errors.Is(err, syscall.ESRCH) {
				continue // it has just ended
			}
			if err != nil {
				return nil, os.NewSyscallError("perf_event_open", err)
			}
			c.fds = append(c.fds, fd)
		}
	}
	return c, nil
}

// count returns how many there were so far.
func (c *syscallCounter) count() (sum uint64, err error) {
	for _, fd := range c.fds {
		n, err := sys.ReadCounter(fd)
		if err != nil {
			return 0, os.NewSyscallError("read", err)
		}
		sum += n
	}
	return sum, nil
}

func (c *syscallCounter) close() {
	for _, fd := range c.fds {
		_ = sys.Close(fd)
	}
	c.fds = nil
}
