package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A pty is a terminal: the test has its keyboard and its screen, a command has the
// rest.
type pty struct {
	master, slave *os.File
	mu            sync.Mutex
	shown         []byte
	changed       chan struct{} // closed with the next output
	done          chan struct{}
}

func ioctl(t *testing.T, fd uintptr, request uintptr, value unsafe.Pointer) {
	t.Helper()
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(value)); e != 0 {
		t.Fatalf("ioctl %#x: %v", request, e)
	}
}

func newPTY(t *testing.T, columns, rows uint16) *pty {
	t.Helper()
	const (
		tiocGPTN   = 0x80045430
		tiocSPTLCK = 0x40045431
	)
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{master: master, changed: make(chan struct{}), done: make(chan struct{})}
	var number, unlocked uint32
	conn, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Control(func(fd uintptr) {
		ioctl(t, fd, tiocSPTLCK, unsafe.Pointer(&unlocked))
		ioctl(t, fd, tiocGPTN, unsafe.Pointer(&number))
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	p.resize(t, columns, rows)
	go p.watch()
	t.Cleanup(func() {
		_ = p.slave.Close()
		_ = p.master.Close()
		<-p.done
	})
	return p
}

func (p *pty) watch() {
	defer close(p.done)
	b := make([]byte, 64<<10)
	for {
		n, err := p.master.Read(b)
		p.mu.Lock()
		p.shown = append(p.shown, b[:n]...)
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
		if err != nil && !errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(time.Millisecond) // nobody has the other end now
		}
	}
}

// resize sets the size, of which the kernel tells who has the terminal.
func (p *pty) resize(t *testing.T, columns, rows uint16) {
	t.Helper()
	const tiocSWINSZ = 0x5414
	size := [4]uint16{rows, columns}
	ioctl(t, p.slave.Fd(), tiocSWINSZ, unsafe.Pointer(&size))
}

// settings are the terminal's.
func (p *pty) settings(t *testing.T) (s [64]byte) {
	t.Helper()
	const tcGETS = 0x5401
	ioctl(t, p.slave.Fd(), tcGETS, unsafe.Pointer(&s))
	return s
}

// run starts a command of which this is the terminal.
func (p *pty) run(t *testing.T, args ...string) *process {
	t.Helper()
	cmd := command(t, args...)
	cmd.Stdin = p.slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return startWith(t, cmd, p.slave, p.slave)
}

func (p *pty) all() (string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.shown), p.changed
}

// frame is the last that is whole, line by line without what is no text.
func lastFrame(shown string) []string {
	end := strings.LastIndex(shown, "\x1b[J")
	if end < 0 {
		return nil
	}
	begin := strings.LastIndex(shown[:end], "\x1b[H")
	text := strings.NewReplacer("\x1b[K", "", "\x1b[1m", "", "\x1b[m", "").Replace(shown[begin+len("\x1b[H") : end])
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, "\r") // one is ours, one may be the terminal's
	}
	return lines
}

// await waits for a frame that is fine.
func (p *pty) await(t *testing.T, what string, fine func(lines []string) bool) []string {
	t.Helper()
	timeout := time.After(patience)
	for {
		shown, changed := p.all()
		if lines := lastFrame(shown); lines != nil && fine(lines) {
			return lines
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("no frame with %s; the last is\n%s", what, strings.Join(lastFrame(shown), "\n"))
		}
	}
}

func has(words ...string) func([]string) bool {
	return func(lines []string) bool {
		text := strings.Join(lines, "\n")
		for _, w := range words {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	}
}

func (p *pty) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := io.WriteString(p.master, keys); err != nil {
		t.Fatal(err)
	}
}

// Live on a terminal: what there is, keys, another size, and an end that leaves the
// terminal as it was.
func TestTop(t *testing.T) {
	testnet.Leaks(t)
	d := runOperated(t, "")
	c, err := net.DialTimeout("tcp", d.addr(t, "web"), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	talking := make(chan struct{})
	go func() {
		defer close(talking)
		b := make([]byte, 1000)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			time.Sleep(time.Millisecond) // the load, not a wait for anything
		}
	}()
	p := newPTY(t, 160, 40)
	before := p.settings(t)
	top := p.run(t, "top", "--admin", "unix:"+d.socket, "--interval", "100ms")
	lines := p.await(t, "a session and its rate", func(lines []string) bool {
		return has("LISTENER", "web", "copy", d.server, c.LocalAddr().String(), "q quit")(lines) && strings.Contains(strings.Join(lines, "\n"), "kB/s")
	})
	if len(lines) != 40 {
		t.Errorf("%d lines on a terminal of 40", len(lines))
	}
	if p.settings(t) == before {
		t.Error("the terminal still waits for whole lines")
	}
	p.press(t, "s")
	p.await(t, "another order", has("s sort sessions (bytes)"))
	p.press(t, "p")
	p.await(t, "a pause", has("PAUSED"))
	p.press(t, "p")
	p.resize(t, 50, 12)
	p.await(t, "12 lines of at most 50", func(lines []string) bool {
		for _, l := range lines {
			if utf8.RuneCountInString(l) > 50 {
				return false
			}
		}
		return len(lines) == 12
	})
	p.resize(t, 3, 1)
	p.await(t, "one line", func(lines []string) bool { return len(lines) == 1 && len(lines[0]) <= 3 })
	p.resize(t, 160, 40)
	p.await(t, "40 lines", func(lines []string) bool { return len(lines) == 40 })
	p.press(t, "q")
	if code := top.wait(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	p.restored(t, before)
	_ = c.Close()
	<-talking
	d.stop(t)
}

// restored checks that the terminal is what it was.
func (p *pty) restored(t *testing.T, before [64]byte) {
	t.Helper()
	eventually(t, func() error {
		shown, _ := p.all()
		if enter, leave := strings.LastIndex(shown, enterScreen), strings.LastIndex(shown, leaveScreen); enter < 0 || leave < enter {
			return errors.New("the screen was not left")
		}
		if p.settings(t) != before {
			return errors.New("the terminal is not set as it was before")
		}
		return nil
	})
}

// Whatever ends it, the terminal is what it was; a daemon that goes does not end it.
func TestTopEnds(t *testing.T) {
	testnet.Leaks(t)
	d := runOperated(t, "")
	for name, end := range map[string]func(p *pty, top *process){
		"Ctrl-C":  func(p *pty, _ *process) { p.press(t, "\x03") },
		"Ctrl-\\": func(p *pty, _ *process) { p.press(t, "\x1c") },
		"SIGTERM": func(_ *pty, top *process) { top.signal(syscall.SIGTERM) },
		"SIGHUP":  func(_ *pty, top *process) { top.signal(syscall.SIGHUP) },
	} {
		p := newPTY(t, 80, 24)
		before := p.settings(t)
		top := p.run(t, "top", "--admin", "unix:"+d.socket, "--interval", "100ms")
		p.await(t, "a listener", has("web"))
		end(p, top)
		if code := top.wait(); code != exitOK {
			t.Errorf("%s: exit code %d", name, code)
		}
		p.restored(t, before)
	}
	p := newPTY(t, 80, 24)
	before := p.settings(t)
	top := p.run(t, "top", "--admin", "unix:"+d.socket, "--interval", "100ms")
	p.await(t, "a listener", has("web"))
	d.stop(t)
	p.await(t, "that nobody answers", has("NO ANSWER", "web"))
	p.press(t, "q")
	if code := top.wait(); code != exitOK {
		t.Errorf("exit code %d after the daemon has gone", code)
	}
	p.restored(t, before)
	// With nobody there from the beginning nothing is drawn.
	p = newPTY(t, 80, 24)
	if code := p.run(t, "top", "--admin", "unix:"+d.socket).wait(); code != exitNoDaemon {
		t.Errorf("exit code %d without a daemon", code)
	}
	if shown, _ := p.all(); strings.Contains(shown, enterScreen) {
		t.Error("drawn without a daemon")
	}
}

// Ctrl-Z gives the terminal back, and fg takes it again.
func TestTopStops(t *testing.T) {
	testnet.Leaks(t)
	d := runOperated(t, "")
	p := newPTY(t, 80, 24)
	before := p.settings(t)
	top := p.run(t, "top", "--admin", "unix:"+d.socket, "--interval", "100ms")
	p.await(t, "a listener", has("web"))
	top.signal(syscall.SIGTSTP)
	p.restored(t, before)
	eventually(t, func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", top.cmd.Process.Pid))
		if err != nil {
			return err
		}
		if _, state, _ := strings.Cut(string(b), ") "); state[0] != 'T' {
			return fmt.Errorf("state %c, want it stopped", state[0])
		}
		return nil
	})
	shown, _ := p.all()
	top.signal(syscall.SIGCONT)
	eventually(t, func() error {
		if all, _ := p.all(); !strings.Contains(all[len(shown):], enterScreen) || p.settings(t) == before {
			return errors.New("the screen was not entered again")
		}
		return nil
	})
	p.press(t, "q")
	if code := top.wait(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	p.restored(t, before)
	d.stop(t)
}

// Without a terminal it is one frame of text.
func TestTopOnce(t *testing.T) {
	testnet.Leaks(t)
	d := runOperated(t, "")
	stdout, stderr, code := execute(t, "top", "-c", d.config, "--interval", "100ms")
	if code != exitOK || stderr != "" || !has("running", "LISTENER", "web", "all", d.server, "SESSION")([]string{stdout}) || strings.Contains(stdout, "\x1b") {
		t.Errorf("exit code %d, %q\n%s", code, stderr, stdout)
	}
	if _, stderr, code = execute(t, "top", "--sort", "size"); code != exitUsage || !strings.Contains(stderr, "rate") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	d.stop(t)
}

// A frame is never larger than the terminal, and says the rates of what has moved.
func TestFrame(t *testing.T) {
	shot := func(seconds int64, n int64) *adminapi.Snapshot {
		s := &adminapi.Snapshot{Time: time.Unix(seconds, 0)}
		s.Status.PID, s.Status.Accepted, s.Status.BytesToClient = 1, uint64(n), 1000*n
		s.Status.Reload = &adminapi.Reload{Error: "c.yaml:1:1: wrong\nmore"}
		for i := range 30 {
			counts := adminapi.Counts{Accepted: uint64(n), BytesToClient: 1000 * n}
			s.Listeners = append(s.Listeners, adminapi.Listener{Name: fmt.Sprint("listener", i), Counts: counts, Engines: []adminapi.EngineUse{{BytesToClient: 1000 * n, Joined: 1}}})
			u := adminapi.Upstream{Name: fmt.Sprint("upstream", i), Servers: []adminapi.Server{{Name: "a", State: "up", Connected: uint64(n)}}}
			if i == 20 {
				u.Servers[0].State, u.Servers[0].Error, u.Servers[0].Down = "down", "connection refused", true
			}
			s.Upstreams = append(s.Upstreams, u)
			b := adminapi.BusySession{RateToClient: float64(i)}
			b.ID, b.SNI, b.BytesToClient = uint64(i), "\x1b[2J", int64(100-i)
			s.Sessions = append(s.Sessions, b)
		}
		return s
	}
	before, now := shot(1, 10), shot(3, 30)
	for _, size := range [][2]int{{200, 50}, {80, 24}, {40, 10}, {10, 3}, {1, 1}, {0, 0}} {
		f := &frame{last: before, now: now, sort: "rate", width: size[0], height: size[1], note: "note"}
		lines := f.lines()
		if size[1] > 0 && len(lines) != size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, l := range lines {
			if size[0] > 0 && utf8.RuneCountInString(l.text) > size[0] || strings.ContainsRune(l.text, '\x1b') {
				t.Errorf("%v: %q", size, l.text)
			}
		}
	}
	text := func(f *frame) string {
		var b strings.Builder
		for _, l := range f.lines() {
			b.WriteString(l.text + "\n")
		}
		return b.String()
	}
	if got := text(&frame{last: before, now: now, sort: "rate"}); !has("accepted 10/s", "to clients 10.0 kB/s", "reload REFUSED", "c.yaml:1:1: wrong", "?[2J")([]string{got}) || strings.Contains(got, "more") {
		t.Errorf("frame\n%s", got)
	}
	// Where there is not room for all servers, those that are down are seen.
	if got := text(&frame{last: before, now: now, sort: "rate", width: 140, height: 24}); !has("connection refused", "lines more")([]string{got}) {
		t.Errorf("frame\n%s", got)
	}
	for sort, want := range map[string]string{"rate": "29 ", "bytes": "0 ", "id": "0 "} {
		_, table, _ := strings.Cut(text(&frame{now: now, sort: sort}), "\nSESSION ")
		if rows := strings.Split(table, "\n"); !strings.HasPrefix(rows[1], want) {
			t.Errorf("by %s: %q", sort, rows[1])
		}
	}
	// Another process counts from its own beginning.
	now.Status.PID = 2
	if got := text(&frame{last: before, now: now, sort: "rate"}); !strings.Contains(got, "accepted 0/s") {
		t.Errorf("rates over an upgrade\n%s", got)
	}
	if _, err := json.Marshal(now); err != nil {
		t.Fatal(err)
	}
}
