package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
)

// firstPassed is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstPassed = 3

// maxPassed bounds what LISTEN_FDS may ask for.
const maxPassed = 1024

var errNotActivated = errors.New("listen on systemd: it passed no socket: LISTEN_FDS and LISTEN_PID are not set for this process; want a .socket unit, or an address")

type lookupEnv func(name string) (string, bool)

// activated returns the listening sockets that systemd passed to this process.
// See sd_listen_fds(3).
func activated(env lookupEnv, pid int) ([]net.Listener, error) {
	n, err := passedFDs(env, pid)
	if err != nil {
		return nil, err
	}
	// Not for our children.
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	var listeners []net.Listener
	for fd := firstPassed; fd < firstPassed+n; fd++ {
		f := os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd))
		ln, err := net.FileListener(f) // on a close-on-exec duplicate
		_ = f.Close()
		if err != nil {
			closeAll(listeners)
			return nil, fmt.Errorf("listen on descriptor %d that systemd passed: want a listening stream socket (ListenStream=, Accept=no): %w", fd, err)
		}
		listeners = append(listeners, ln)
	}
	return listeners, nil
}

// passedFDs returns how many descriptors were passed. Variables meant for
// another process, such as a parent, are no error: there are none for us.
func passedFDs(env lookupEnv, pid int) (int, error) {
	pidText, ok := env("LISTEN_PID")
	if !ok {
		return 0, nil
	}
	fds, ok := env("LISTEN_FDS")
	if !ok {
		return 0, nil
	}
	owner, err := strconv.ParseUint(pidText, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("socket activation: LISTEN_PID=%q: want a process id", pidText)
	}
	if int(owner) != pid {
		return 0, nil
	}
	n, err := strconv.ParseUint(fds, 10, 31)
	if err != nil || n > maxPassed {
		return 0, fmt.Errorf("socket activation: LISTEN_FDS=%q: want a number from 0 to %d", fds, maxPassed)
	}
	return int(n), nil
}
