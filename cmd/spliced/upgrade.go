package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config"
)

// upgradeTimeout is how long a new process may take until it is ready.
const upgradeTimeout = time.Minute

// The names of what goes along with a server: see [proxy.Baggage].
const (
	adminFile   = "admin"
	metricsFile = "metrics"
)

// daemonState is what a daemon tells its successor.
type daemonState struct {
	Admin     string `json:"admin,omitempty"`      // the address as configured
	AdminFile string `json:"admin_file,omitempty"` // of the socket; "": none that is its own
	Metrics   string `json:"metrics,omitempty"`    // likewise
	Sandboxed bool   `json:"sandboxed,omitempty"`
}

// luggage are the sockets that a successor goes on with.
type luggage struct {
	admin, metrics net.Listener
	abandoned      net.Listener // an admin socket at which nobody answers any more
}

func (l luggage) close() {
	for _, ln := range []net.Listener{l.admin, l.metrics, l.abandoned} {
		if ln != nil {
			_ = ln.Close()
		}
	}
}

// unpack takes over what the predecessor's daemon has, as far as the file has it
// at the same address.
func (d *daemon) unpack(file *config.File, before *proxy.Inheritance) (l luggage, err error) {
	if before == nil {
		return l, nil
	}
	var st daemonState
	if err := json.Unmarshal(before.State, &st); err != nil {
		return l, fmt.Errorf("take over: %w", err)
	}
	d.sandboxed = st.Sandboxed
	if l.admin, err = before.Listener(adminFile, st.AdminFile); st.Admin != file.Admin.Address {
		l.admin, l.abandoned = nil, l.admin
	}
	if err == nil && st.Metrics == file.Metrics {
		l.metrics, err = before.Listener(metricsFile, "")
	}
	if err != nil {
		l.close()
		return luggage{}, fmt.Errorf("take over: %w", err)
	}
	return l, nil
}

// pack is the inverse of unpack.
func (d *daemon) pack() (b proxy.Baggage, err error) {
	st := daemonState{Sandboxed: d.sandboxed}
	b.Files = make(map[string]*os.File)
	add := func(name string, ln net.Listener) {
		if err != nil {
			return
		}
		if f, ok := ln.(interface{ File() (*os.File, error) }); ok {
			b.Files[name], err = f.File()
		}
	}
	if d.admin != nil {
		st.Admin, st.AdminFile = d.admin.address, proxy.SocketPath(d.admin.ln)
		add(adminFile, d.admin.ln)
	}
	if d.eyes != nil {
		st.Metrics = d.metricsAddress
		add(metricsFile, d.eyes.ln)
	}
	if err == nil {
		b.State, err = json.Marshal(st)
	}
	if err != nil {
		unpackFiles(b)
	}
	return b, err
}

func unpackFiles(b proxy.Baggage) {
	for _, f := range b.Files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// program is how this one was started, so that a new one at the same place, also
// behind a link, is found.
func program() string {
	if path, err := exec.LookPath(os.Args[0]); err == nil {
		if path, err = filepath.Abs(path); err == nil {
			return path
		}
	}
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

// upgrade starts the program again and has it take this process's place. After an
// error this process goes on as if nothing was.
func (d *daemon) upgrade(ctx context.Context) (pid int, err error) {
	if !d.upgrading.TryLock() {
		return 0, errors.New("an upgrade is under way")
	}
	defer d.upgrading.Unlock()
	begun := time.Now()
	d.log.Info("upgrading", "program", d.self)
	pid, next, err := d.succeed(ctx)
	if err != nil {
		d.log.Error("upgrade refused: this process goes on", "program", d.self, "error", oneLine{err})
		return 0, err
	}
	d.service.tell(d.log, fmt.Sprintf("MAINPID=%d", pid))
	d.log.Info("upgraded", "successor", pid, "duration_ms", float64(time.Since(begun).Microseconds())/1e3)
	d.succeeded <- next
	return pid, nil
}

func (d *daemon) succeed(ctx context.Context) (pid int, next *proxy.Succession, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, upgradeTimeout, fmt.Errorf("the new process was not ready within %v", upgradeTimeout))
	defer cancel()
	b, err := d.pack()
	if err != nil {
		return 0, nil, err
	}
	defer unpackFiles(b)
	p, conn, err := d.spawn()
	if err != nil {
		return 0, nil, fmt.Errorf("start the new process: %w", err)
	}
	next, err = d.server.HandOver(ctx, conn, b, version())
	if err != nil {
		return 0, nil, errors.Join(err, p.end())
	}
	return p.cmd.Process.Pid, next, nil
}

// A successor is the process to be.
type successor struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it was waited for
	err    error
}

// end ends a process that is not to be, and says how it has ended if that was by
// itself.
func (p *successor) end() error {
	select {
	case <-p.exited: // it has refused, and goes, or has gone
	case <-time.After(100 * time.Millisecond):
		_ = p.cmd.Process.Kill()
		<-p.exited
		return nil
	}
	if p.err != nil {
		return fmt.Errorf("it has ended: %w", p.err)
	}
	return errors.New("it has ended with exit code 0")
}

// retire ends this process: another one has its place. Connections that can't be
// handed over may end by themselves within the time of a drain.
func (d *daemon) retire(next *proxy.Succession, signals <-chan os.Signal) {
	d.leaveAdmin()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- d.server.Drain(ctx) }()
	// The first signal to end is meant for the successor: it is what the service
	// manager sends to all.
	enough := make(chan struct{})
	d.background.Go(func() {
		for n := 0; n < 2; {
			select {
			case s := <-signals:
				if s == os.Interrupt || s.String() == "terminated" {
					n++
				}
			case <-ctx.Done():
				return
			}
		}
		close(enough)
		cancel()
	})
	begun := time.Now()
	moved, err := next.Move(ctx)
	args := []any{"connections", moved, "staying", d.server.Stats().Open, "duration_ms", float64(time.Since(begun).Microseconds()) / 1e3}
	if err != nil {
		d.log.Warn("connections handed over", append(args, "error", oneLine{err})...)
	} else {
		d.log.Info("connections handed over", args...)
	}
	cutting(d.server, d.log, <-drained)
	cancel()
	d.background.Wait()
	_ = d.server.Close()
	d.log.Info("ended", "pid", os.Getpid())
}

// leaveAdmin has the successor answer whoever asks, and brings to its end what was
// asked before.
func (d *daemon) leaveAdmin() {
	if d.admin != nil {
		d.admin.leave()
	}
	if d.eyes != nil {
		d.eyes.stop()
	}
}

type upgradeCmd struct {
	Config string `short:"c" required:"" placeholder:"FILE" help:"The configuration of the daemon: its key admin says where it listens."`
}

// Run has another process take the daemon's place.
func (c *upgradeCmd) Run(ctx context.Context, std streams) error {
	address, err := adminAddress(c.Config, std, "upgrade", "SIGUSR2")
	if err != nil {
		return err
	}
	text, err := ask(ctx, address, "/v1/upgrade")
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	var answer struct {
		PID int `json:"pid"`
	}
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&answer); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	fmt.Fprintln(std.out, answer.PID)
	return nil
}
