package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spliced-io/spliced/proxy"
)

// firstPassed is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstPassed = 3

// maxPassed bounds what LISTEN_FDS may ask for.
const maxPassed = 1024

var errNotActivated = errors.New("listen on systemd: it passed no socket: LISTEN_FDS and LISTEN_PID are not set for this process; want a .socket unit, or an address")

type lookupEnv func(name string) (string, bool)

// passedSockets are the listening sockets that systemd passed to this process.
type passedSockets struct {
	mu    sync.Mutex
	named []passedSocket // not taken yet
	were  int
}

type passedSocket struct {
	name string // FileDescriptorName= of the unit
	ln   net.Listener
}

// activated takes the sockets over. See sd_listen_fds(3).
func activated(env lookupEnv, pid int) (*passedSockets, error) {
	n, err := passedFDs(env, pid)
	if err != nil {
		return nil, err
	}
	list, _ := env("LISTEN_FDNAMES")
	names := strings.Split(list, ":")
	// Not for our children.
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	p := &passedSockets{were: n}
	for i := range n {
		fd := firstPassed + i
		f := os.NewFile(uintptr(fd), "LISTEN_FD_"+strconv.Itoa(fd))
		ln, err := net.FileListener(f) // on a close-on-exec duplicate
		if err == nil && !listens(f) {
			_ = ln.Close()
			err = errors.New("the socket does not listen")
		}
		_ = f.Close()
		if err != nil {
			p.close()
			return nil, fmt.Errorf("listen on descriptor %d that systemd passed: want a listening stream socket (ListenStream=, Accept=no): %w", fd, err)
		}
		s := passedSocket{ln: ln}
		if i < len(names) {
			s.name = names[i]
		}
		p.named = append(p.named, s)
	}
	return p, nil
}

func (p *passedSockets) any() bool { return p.were > 0 }

// close closes what nobody has taken.
func (p *passedSockets) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.named {
		_ = s.ln.Close()
	}
	p.named = nil
}

// listen opens an address. systemd stands for all passed sockets, systemd:NAME
// for those of that name.
func (p *passedSockets) listen(ctx context.Context, addr proxy.Addr, o proxy.SocketOptions) ([]net.Listener, error) {
	if addr.Network != "systemd" {
		ln, err := proxy.Listen(ctx, addr, o)
		if err != nil {
			return nil, err
		}
		return []net.Listener{ln}, nil
	}
	if !p.any() {
		return nil, errNotActivated
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var taken []net.Listener
	p.named = slices.DeleteFunc(p.named, func(s passedSocket) bool {
		fits := addr.Address == "" || addr.Address == s.name
		if fits {
			taken = append(taken, s.ln)
		}
		return fits
	})
	if taken == nil {
		return nil, fmt.Errorf("listen on %s: systemd passed %d sockets, and none of them is left for it: want the FileDescriptorName= of one, for one listener", addr, p.were)
	}
	return taken, nil
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
