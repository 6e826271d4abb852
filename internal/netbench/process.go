package netbench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// process is a started program in a process group of its own.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	events chan event // of a role; closed at its end
	log    string     // file with its output
	family *family    // of a peer
	done   chan struct{}
	err    error // set before done is closed
}

// ownImage is this program, even if its file has been replaced. A child opens
// it before it becomes something else.
const ownImage = "/proc/self/exe"

const (
	termGrace = 2 * time.Second // between SIGTERM and SIGKILL
	killGrace = 2 * time.Second // for the kernel to end what was killed
)

// startProcess runs a command inside a namespace (nil: where we are), in dir, or
// where we are if it is a person's; its output goes to a file in dir.
func startProcess(ns *testnet.Namespace, dir, name string, command []string, persons bool, f *family) (*process, error) {
	p := newProcess(dir, name, command, f)
	if persons {
		p.cmd.Dir = ""
	}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.start(ns); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// startRole runs this program in a role. The family is nil for source and sink,
// which have no other processes.
func startRole(ns *testnet.Namespace, dir string, self []string, role string, instructions any, f *family) (*process, error) {
	line, err := json.Marshal(instructions)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	p := newProcess(dir, role, append(self[:len(self):len(self)], role), f)
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	defer log.Close()
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	if err := p.start(ns); err != nil {
		return nil, err
	}
	p.events = make(chan event, 16)
	go func() {
		decoder := json.NewDecoder(out)
		for {
			var e event
			if decoder.Decode(&e) != nil {
				break
			}
			p.events <- e
		}
		close(p.events)
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		p.stop()
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	return p, nil
}

func newProcess(dir, name string, command []string, f *family) *process {
	cmd := exec.Command(command[0], command[1:]...)
	if self, err := os.Executable(); err == nil && self == command[0] && exists(ownImage) {
		// A build during the run must not change what is measured.
		cmd.Path = ownImage
	}
	cmd.Dir = dir
	cmd.SysProcAttr = ownGroup()
	if f != nil {
		f.prepare(cmd)
	}
	return &process{name: name, cmd: cmd, log: filepath.Join(dir, name+".log"), done: make(chan struct{}), family: f}
}

func (p *process) start(ns *testnet.Namespace) error {
	start := p.cmd.Start
	if ns != nil {
		start = func() error { return ns.Start(p.cmd) }
	}
	if err := start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	if p.family != nil {
		p.family.first = p.pid()
	}
	return nil
}

// pid is the process's number and that of its group.
func (p *process) pid() int { return p.cmd.Process.Pid }

// acknowledge lets a role go on after a phase.
func (p *process) acknowledge() error {
	_, err := p.stdin.Write([]byte{'\n'})
	return err
}

// stop ends the process, everything in its group and all of its family, and
// waits for them.
func (p *process) stop() {
	if p.stdin != nil {
		p.stdin.Close()
	}
	if p.events != nil {
		go func() {
			for range p.events { // so that the role never blocks on us
			}
		}()
	}
	terminateGroup(p.pid())
	timer := time.NewTimer(termGrace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
	killGroup(p.pid())
	<-p.done
	// What the process itself had started belongs to nobody now.
	_ = p.family.end() // what the kernel does not end within the time stays for the next run
}

// failure says how a process that should be running has ended, with the last
// line that it wrote.
func (p *process) failure() error {
	state := "exit status 0"
	if p.err != nil {
		state = p.err.Error()
	}
	if line := p.lastLine(); line != "" {
		return fmt.Errorf("%s ended: %s: %s", p.name, state, line)
	}
	return fmt.Errorf("%s ended: %s", p.name, state)
}

func (p *process) lastLine() string {
	const most = 4096
	file, err := os.Open(p.log)
	if err != nil {
		return ""
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd)
	}
	content, _ := io.ReadAll(file)
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return strings.TrimSpace(string(lines[len(lines)-1]))
}

// await returns the next event that is no progress report, which goes to
// moved. It fails when the role ends or reports an error, when ctx ends, or when
// other (which may be nil) does.
func (p *process) await(ctx context.Context, other *process, moved func(int64)) (event, error) {
	var otherDone chan struct{}
	if other != nil {
		otherDone = other.done
	}
	for {
		select {
		case e, ok := <-p.events:
			switch {
			case !ok:
				<-p.done
				return e, p.failure()
			case e.Error != "":
				return e, errors.New(e.Error)
			case e.Moved > 0:
				moved(e.Moved)
			case e != event{}:
				return e, nil
			}
		case <-otherDone:
			return event{}, other.failure()
		case <-ctx.Done():
			return event{}, ctx.Err()
		}
	}
}
