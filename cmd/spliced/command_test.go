package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// The test binary is the command too: what is tested is what is built, with
// the race detector if the tests have it.
const (
	beCommand = "SPLICED_TEST_COMMAND" // be the command
	openFiles = "SPLICED_TEST_NOFILE"  // with this limit of open files
)

func TestMain(m *testing.M) {
	if role := testRole(); role != nil {
		if err := role(os.Args[1:]); err != nil {
			panic(err)
		}
		return
	}
	if os.Getenv(beCommand) == "" {
		os.Exit(m.Run())
	}
	if n, err := strconv.ParseUint(os.Getenv(openFiles), 10, 64); err == nil {
		if err := limitFiles(n); err != nil {
			panic(err)
		}
	}
	os.Exit(run(os.Args[1:], streams{os.Stdout, os.Stderr}))
}

// command returns the command as an unstarted process, which may take a minute.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return commandWithin(t, 2*patience, args...)
}

func commandWithin(t *testing.T, limit time.Duration, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = append(os.Environ(), beCommand+"=1")
	if os.Getenv("GORACE") == "" {
		cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0") // else each command takes a second to end
	}
	return cmd
}

// execute runs the command to its end.
func execute(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(t, args...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := cmd.Run(); e != nil {
		var exit *exec.ExitError
		if !errors.As(e, &exit) {
			t.Fatal(e)
		}
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// A process is a command that runs, and what it has printed so far.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *lines
	stderr *lines
	exited chan struct{}
}

// start starts a command, which ends with the test at the latest.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	return startWith(t, cmd, nil, nil)
}

// startWith is start, with files for standard output and error to go to, unless
// they are nil.
func startWith(t *testing.T, cmd *exec.Cmd, stdout, stderr *os.File) *process {
	t.Helper()
	return startBy(t, cmd, stdout, stderr, (*exec.Cmd).Start)
}

// startIn is start where begin does it.
func startIn(t *testing.T, cmd *exec.Cmd, begin func(*exec.Cmd) error) *process {
	t.Helper()
	return startBy(t, cmd, nil, nil, begin)
}

func startBy(t *testing.T, cmd *exec.Cmd, stdout, stderr *os.File, begin func(*exec.Cmd) error) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, stdout: newLines(), stderr: newLines(), exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.stdout, p.stderr
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if stderr != nil {
		cmd.Stderr = stderr
	}
	if err := begin(cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // ProcessState says all
		p.stdout.close()
		p.stderr.close()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("%v\n%s%s", cmd.Args[1:], p.stdout.last(), p.stderr.last())
		}
	})
	return p
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatal("the command does not end")
		return 0
	}
}

// lines collects what is written, and waits for lines of it.
type lines struct {
	mu      sync.Mutex
	text    bytes.Buffer
	over    bool
	changed chan struct{}
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wake()
	return l.text.Write(b)
}

func (l *lines) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.wake()
}

func (l *lines) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// last is the end of it.
func (l *lines) last() string {
	const most = 64 << 10
	all := l.all()
	if len(all) <= most {
		return all
	}
	return "...\n" + all[len(all)-most:]
}

// await returns the first whole line that contains s.
func (l *lines) await(t *testing.T, s string) string {
	t.Helper()
	return l.awaitNth(t, s, 1)
}

// awaitNth returns the nth line that contains s.
func (l *lines) awaitNth(t *testing.T, s string, n int) string {
	t.Helper()
	timeout := time.After(patience)
	for {
		line, changed, over := l.find(s, n)
		if line != "" {
			return line
		}
		if over {
			t.Fatalf("the command has ended without line %d with %q", n, s)
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("no line %d with %q", n, s)
		}
	}
}

// has returns a channel that is closed once there is a line that contains s.
func (l *lines) has(s string) <-chan struct{} {
	found := make(chan struct{})
	go func() {
		for {
			line, changed, over := l.find(s, 1)
			if line != "" {
				close(found)
				return
			}
			if over {
				return
			}
			<-changed
		}
	}()
	return found
}

// find returns the nth whole line that contains s, or what to wait for.
func (l *lines) find(s string, n int) (line string, changed <-chan struct{}, over bool) {
	l.mu.Lock()
	text := l.text.String()
	changed, over = l.changed, l.over
	l.mu.Unlock()
	for line := range strings.Lines(text) {
		if strings.HasSuffix(line, "\n") && strings.Contains(line, s) {
			if n--; n == 0 {
				return strings.TrimSuffix(line, "\n"), changed, over
			}
		}
	}
	return "", changed, over
}
