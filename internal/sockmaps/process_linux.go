package sockmaps

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// SocketsOf lists the sockets of a process by descriptor, from /proc. It needs to be allowed
// to trace the process (ptrace(2)). Sockets that only io_uring or a message on
// its way holds are not there.
func SocketsOf(pid int) ([]Socket, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no process %d", pid)
	case err != nil:
		return nil, fmt.Errorf("list descriptors of process %d: %w", pid, err)
	}
	var sockets []Socket
	for _, entry := range entries {
		target, err := os.Readlink(dir + "/" + entry.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // closed meanwhile
		case err != nil:
			return nil, fmt.Errorf("look at descriptors of process %d: %w", pid, err)
		}
		number, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		fd, _ := strconv.Atoi(entry.Name())
		inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("look at descriptors of process %d: %q", pid, target)
		}
		sockets = append(sockets, Socket{fd, inode})
	}
	slices.SortFunc(sockets, func(a, b Socket) int { return a.FD - b.FD }) // read by name: 20 comes before 3
	return sockets, nil
}
