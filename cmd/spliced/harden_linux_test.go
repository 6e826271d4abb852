package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// The daemon that make build makes drops what it does not need in every thread,
// and goes on serving and reloading as another user.
func TestRunDropsPrivileges(t *testing.T) {
	testnet.Need(t, "root")
	if testing.Short() {
		t.Skip("builds the command")
	}
	dir := dirForAll(t)
	binary := filepath.Join(dir, "spliced")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Run("relay", func(t *testing.T) { dropsPrivileges(t, binary) })
	t.Run("upgrade", func(t *testing.T) { upgradeKeepsPrivileges(t, binary) })
	t.Run("others' files", func(t *testing.T) { reachesOthers(t, binary) })
	t.Run("auto", func(t *testing.T) { autoHandsOver(t, binary) })
	t.Run("wire by name no more", func(t *testing.T) { wireByNameNoMore(t, binary) })
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("hello"))
			c.Close()
		}
	}()
	path := filepath.Join(dir, "c.yaml")
	text := fmt.Sprintf("user: \"65534\"\nlisteners:\n  web: {address: \"127.0.0.1:0\", upstream: web}\nupstreams:\n  web: {servers: [%q]}\n", target.Addr())
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary, "run", "-c", path)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	await := func(want string) string {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			b, _ := os.ReadFile(log.Name())
			if strings.Contains(string(b), want) {
				return string(b)
			}
		}
		b, _ := os.ReadFile(log.Name())
		t.Fatalf("no %q in the log: %s", want, b)
		return ""
	}
	await("privileges dropped")
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", cmd.Process.Pid))
	if len(threads) < 2 {
		t.Fatalf("%d threads", len(threads))
	}
	for _, thread := range threads {
		b, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		for _, want := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65534\t65534\t65534\t65534"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s lacks %q", thread, want)
			}
		}
	}
	_, address, _ := strings.Cut(await("listening on "), "listening on ")
	address, _, _ = strings.Cut(address, "\n")
	ask := func() {
		t.Helper()
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		b := make([]byte, 5)
		if n, err := c.Read(b); string(b[:n]) != "hello" {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
	ask()
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await("msg=reloaded")
	ask()
	// What it has no rights for any more the kernel refuses, and the old configuration
	// stays in force: a low port, and a file beside no socket of its own.
	elsewhere := filepath.Join(dir, "elsewhere")
	if err := errors.Join(os.Mkdir(elsewhere, 0o777), os.Chmod(elsewhere, 0o777)); err != nil {
		t.Fatal(err)
	}
	sandboxed := strings.Contains(await("privileges dropped"), "landlock version")
	const landlockCreateRuleset, askVersion = 444, 1
	if version, _, e := syscall.Syscall(landlockCreateRuleset, 0, 0, askVersion); e == 0 && !sandboxed {
		t.Errorf("the kernel has landlock, version %d, and it is not used", version)
	}
	refused := 0
	for _, more := range []string{"127.0.0.1:81", "unix:" + elsewhere + "/s"} {
		if strings.HasPrefix(more, "unix:") && !sandboxed {
			continue
		}
		if err := os.WriteFile(path, []byte(strings.Replace(text, "upstreams:", fmt.Sprintf("  more: {address: %q, upstream: web}\nupstreams:", more), 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		refused++
		var lines []string
		for end := time.Now().Add(patience); len(lines) < refused && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			lines = nil
			for line := range strings.Lines(await("listening on ")) {
				if strings.Contains(line, "reload refused") {
					lines = append(lines, line)
				}
			}
		}
		if len(lines) != refused || !strings.Contains(lines[refused-1], more) || !strings.Contains(lines[refused-1], "permission denied") {
			t.Errorf("a reload to %s: %q", more, lines)
		}
		ask()
	}
	if _, err := os.Stat(elsewhere + "/s"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file elsewhere: %v", err)
	}
}

// The relay keeps what its engine may use, and what it needs for unix sockets; the daemon, if it
// does not become another user, what its listeners may use. What they never had they don't get.
func dropsPrivileges(t *testing.T, binary string) {
	const dacOverride, netAdmin, netRaw, sysResource, perfmon, bpf = 1 << 1, 1 << 12, 1 << 13, 1 << 24, 1 << 38, 1 << 39
	daemon := func(engine string) []string {
		path := filepath.Join(t.TempDir(), "c.yaml")
		text := "listeners:\n  web: {address: \"127.0.0.1:0\", upstream: web, engine: " + engine + "}\nupstreams:\n  web: {servers: [\"127.0.0.1:1\"]}\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{"run", "-c", path}
	}
	mine := permitted(t, "/proc/self/status")
	for _, tc := range []struct {
		args []string
		want uint64
	}{
		{[]string{"relay", "--engine", "copy", "127.0.0.1:0"}, sysResource},
		{[]string{"relay", "127.0.0.1:0"}, sysResource | netAdmin | netRaw | perfmon | bpf},
		{[]string{"relay", "--engine", "splice", "unix:" + filepath.Join(t.TempDir(), "s")}, sysResource | dacOverride},
		{daemon("auto"), sysResource | netAdmin | netRaw | perfmon | bpf},
		{daemon("splice"), sysResource},
		{daemon("wire"), sysResource | netAdmin | netRaw | perfmon | bpf},
	} {
		p := start(t, exec.Command(binary, tc.args...))
		p.stderr.await(t, "privileges dropped")
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
		if err != nil || len(threads) < 2 {
			t.Fatalf("%d threads, %v", len(threads), err)
		}
		for _, thread := range threads {
			b, err := os.ReadFile(thread)
			if err != nil {
				continue // it has ended
			}
			have, err := permittedIn(string(b))
			if err != nil || have != tc.want&mine || !strings.Contains(string(b), "NoNewPrivs:\t1") {
				t.Errorf("%v: %s has the capabilities %#x, want %#x; %v", tc.args, thread, have, tc.want&mine, err)
			}
		}
		if strings.HasPrefix(tc.args[1], "127") {
			page, err := exec.Command("sh", "-c", strings.TrimPrefix(p.stdout.await(t, "try: curl "), "try: ")).CombinedOutput()
			if err != nil || !strings.Contains(string(page), "carried by spliced") {
				t.Errorf("%v: %s", err, page)
			}
		}
		p.signal(syscall.SIGTERM)
		if code := p.wait(); code != exitOK {
			t.Errorf("%v: exit code %d", tc.args, code)
		}
	}
}

// permitted are the capabilities that a process may have, by its status file.
func permitted(t *testing.T, path string) uint64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := permittedIn(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func permittedIn(status string) (n uint64, err error) {
	_, text, _ := strings.Cut(status, "CapPrm:\t")
	_, err = fmt.Sscanf(text, "%x", &n)
	return n, err
}

func TestNoSuchUser(t *testing.T) {
	t.Parallel()
	if _, err := lookUp("nobody-of-that-name"); err == nil || !strings.Contains(err.Error(), `user "nobody-of-that-name"`) {
		t.Errorf("error %v", err)
	}
}

// A new process of the program has the capabilities that the one before it has kept, and
// can use them.
func upgradeKeepsPrivileges(t *testing.T, binary string) {
	for name, user := range map[string]string{"root": "", "another user": "user: \"65534\"\n"} {
		t.Run(name, func(t *testing.T) {
			const netRaw = 1 << 13
			dir := dirForAll(t)
			d := &daemonProcess{config: filepath.Join(dir, "c.yaml")}
			write := func(address string) {
				t.Helper()
				text := user + "listeners:\n  web: {address: \"" + address + "\", socket: {transparent: true}, upstream: web}\nupstreams:\n  web: {servers: \"127.0.0.1:1\"}\n"
				if err := os.WriteFile(d.config, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write("127.0.0.1:0")
			d.process = start(t, exec.Command(binary, "run", "-c", d.config))
			t.Cleanup(func() {
				for _, pid := range d.generations() {
					if pid != d.cmd.Process.Pid { // which may be gone, and is ended by start
						_ = syscall.Kill(pid, syscall.SIGKILL)
					}
				}
			})
			overGenerations(t, d, func(n int) {
				if got := permitted(t, fmt.Sprintf("/proc/%d/status", d.last())); got&netRaw == 0 {
					t.Errorf("process %d has the capabilities %x, want %x among them", n+1, got, netRaw)
				}
				write(fmt.Sprintf("127.0.0.%d:0", n+2)) // a transparent socket that was not there
			})
			d.stopLast(t)
		})
	}
}

// dirForAll is a directory that other users can enter.
func dirForAll(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// overGenerations calls look with the number of each of two processes, the second the successor of
// the first, and has each reload.
func overGenerations(t *testing.T, d *daemonProcess, look func(n int)) {
	t.Helper()
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(d.last(), s); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 2 {
		if n > 0 {
			signal(syscall.SIGUSR2)
		}
		d.stderr.awaitNth(t, "msg=started", n+1)
		look(n)
		signal(syscall.SIGHUP)
		d.stderr.awaitNth(t, "msg=reloaded", n+1)
	}
}
