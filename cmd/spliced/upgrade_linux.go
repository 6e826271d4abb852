package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/spliced-io/spliced/internal/privilege"
	"github.com/spliced-io/spliced/proxy"
)

// upgradeFD names the descriptor by which a process is handed over to.
const upgradeFD = "SPLICED_UPGRADE_FD"

// upgradeSignals ask for an upgrade.
func upgradeSignals() []os.Signal { return []os.Signal{syscall.SIGUSR2} }

// inherit takes over from the process that has started this one for that; nil if
// none has.
func inherit(ctx context.Context, env lookupEnv) (*proxy.Inheritance, error) {
	text, ok := env(upgradeFD)
	if !ok {
		return nil, nil
	}
	_ = os.Unsetenv(upgradeFD)
	fd, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%s=%q: want a descriptor", upgradeFD, text)
	}
	f := os.NewFile(uintptr(fd), "predecessor")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return nil, fmt.Errorf("%s=%d: %w", upgradeFD, fd, err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("%s=%d: want a unix socket", upgradeFD, fd)
	}
	return proxy.Inherit(ctx, conn)
}

// spawn starts the successor, which speaks at the other end of conn.
func (d *daemon) spawn() (*successor, *net.UnixConn, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "successor"), os.NewFile(uintptr(fds[1]), "predecessor")
	defer near.Close()
	defer far.Close()
	conn, err := net.FileConn(near)
	if err != nil {
		return nil, nil, err
	}
	capabilities, err := privilege.ForChild()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		_ = conn.Close()
		return nil, nil, err
	}
	cmd := exec.Command(d.self, os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{far}
	cmd.Env = append(os.Environ(), upgradeFD+"=3")
	if d.service.socket != "" {
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+d.service.socket)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: capabilities}
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	p := &successor{cmd: cmd, exited: make(chan struct{})}
	go func() { // this process ends before the successor, as a rule
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, conn.(*net.UnixConn), nil
}
