package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config"
)

// upgradeTimeout is how long a new process may take until it is ready.
const upgradeTimeout = time.Minute

// The names of what goes along with a server: see [proxy.Baggage].
const (
	adminFile   = "admin " // and the address
	metricsFile = "metrics"
)

// daemonState is what a daemon tells its successor.
type daemonState struct {
	Admins  []doorState `json:"admins,omitempty"`
	Metrics string      `json:"metrics,omitempty"` // the address as configured
	logLevels
	Sandboxed bool `json:"sandboxed,omitempty"`
	Became    bool `json:"became,omitempty"` // the configured user, who was not its own at first
}

// logLevels are what is logged, and what the configuration says: if that has not changed, an
// operator's word holds.
type logLevels struct {
	Level      *slog.Level `json:"level,omitempty"`
	Configured *slog.Level `json:"configured_level,omitempty"`
}

// logLevels are those of the daemon now.
func (d *daemon) logLevels() logLevels {
	d.mu.Lock()
	defer d.mu.Unlock()
	level, configured := d.level.Level(), d.file.Log.Level
	return logLevels{&level, &configured}
}

// recallLevel has logged what an operator has said to the process before this one.
func (d *daemon) recallLevel(l logLevels, file *config.File) {
	if l.Level != nil && l.Configured != nil && *l.Configured == file.Log.Level {
		d.level.Set(*l.Level)
	}
}

// A doorState is an address where operators ask.
type doorState struct {
	Address string `json:"address"`        // as configured
	File    string `json:"file,omitempty"` // of the socket; "": none that is its own
}

// luggage are the sockets that a successor goes on with.
type luggage struct {
	admin     map[string]net.Listener // by address
	metrics   net.Listener
	abandoned []net.Listener // admin sockets at which nobody answers any more
}

func (l luggage) close() {
	for _, ln := range l.admin {
		_ = ln.Close()
	}
	for _, ln := range l.abandoned {
		_ = ln.Close()
	}
	if l.metrics != nil {
		_ = l.metrics.Close()
	}
}

// abandon closes what has no use any more, with its files.
func (l luggage) abandon() {
	for _, ln := range l.abandoned {
		removeWith(ln)
		_ = ln.Close()
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
	d.sandboxed, d.became = st.Sandboxed, st.Became
	d.recallLevel(st.logLevels, file)
	l.admin = make(map[string]net.Listener)
	for _, door := range st.Admins {
		if err != nil {
			break
		}
		var ln net.Listener
		switch ln, err = before.Listener(adminFile+door.Address, door.File); {
		case ln == nil:
		case slices.Contains(file.Admin.Address, door.Address):
			l.admin[door.Address] = ln
		default:
			l.abandoned = append(l.abandoned, ln)
		}
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
	st := daemonState{Sandboxed: d.sandboxed, Became: d.became, logLevels: d.logLevels()}
	b.Last = func() json.RawMessage {
		said, _ := json.Marshal(d.logLevels()) // which can't fail
		return said
	}
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
		for _, door := range d.admin.doors {
			st.Admins = append(st.Admins, doorState{door.address, proxy.SocketPath(door.ln)})
			add(adminFile+door.address, door.ln)
		}
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

// errUpgrading is what a further upgrade meets.
var errUpgrading = errors.New("an upgrade is under way")

// upgradeBySignal has the log say how it has gone: also that it was not begun, once a second at most.
func (d *daemon) upgradeBySignal() {
	if _, err := d.upgrade(d.ending); errors.Is(err, errUpgrading) && d.again.may(time.Now()) {
		d.log.Warn("upgrade not begun", "error", err)
	}
}

// upgrade starts the program again and has it take this process's place. After an
// error this process goes on as if nothing was.
func (d *daemon) upgrade(ctx context.Context) (int, error) {
	if !d.upgrading.TryLock() {
		return 0, errUpgrading
	}
	defer d.upgrading.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.ending, func() { cancel(errEnding) })()
	begun := time.Now()
	d.log.Info("upgrading", "program", d.self)
	pid, next, err := d.succeed(ctx)
	if err != nil {
		d.log.Error("upgrade refused: this process goes on", "program", d.self, "error", oneLine{err})
		return 0, err
	}
	if d.admin != nil {
		d.admin.close() // who is told that it is done, and asks again, asks the other
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
				if toEnd(s) {
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
	d.quiet()
	moved, err := next.Move(ctx)
	args := []any{"connections", moved, "staying", d.server.Stats().Open, "flows", next.Flows(), "duration_ms", float64(time.Since(begun).Microseconds()) / 1e3}
	if err != nil {
		d.log.Warn("connections handed over", append(args, "error", oneLine{err})...)
	} else {
		d.log.Info("connections handed over", args...)
	}
	cutting(d.server, d.log, d.endDrain(ctx, <-drained))
	cancel()
	d.background.Wait()
	d.server.Leave() // what is spliced, and could not be handed over
	_ = d.server.Close()
	d.events.close()
	d.log.Info("ended", "pid", os.Getpid())
}

// endDrain is the end of a drain that has ended with err: connections may have come back since, of
// a successor that has died.
func (d *daemon) endDrain(ctx context.Context, err error) error {
	if err == nil && d.server.Stats().Open > 0 {
		return d.server.Drain(ctx)
	}
	return err
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
	adminFlags
}

// Run has another process take the daemon's place.
func (c *upgradeCmd) Run(ctx context.Context, std streams) error {
	client, err := c.client(std)
	if err != nil {
		return err
	}
	answer, err := askUpgrade(ctx, client)
	var refused *adminapi.Error
	if errors.As(err, &refused) && refused.Code == adminapi.UpgradeRefused {
		return fmt.Errorf("upgrade refused, the old process goes on:\n%w", err)
	}
	if err != nil {
		return fmt.Errorf("upgrade: %w", explain(client, err))
	}
	fmt.Fprintln(std.out, answer.PID)
	return nil
}

// askUpgrade has another process take a daemon's place. The error is the daemon's.
func askUpgrade(ctx context.Context, client *adminapi.Client) (answer adminapi.Upgraded, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*upgradeTimeout)
	defer cancel()
	err = client.Do(ctx, http.MethodPost, "/v1/upgrade", nil, &answer)
	return answer, err
}
