package testnet_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// crashEnv makes this test binary the process that leaves a namespace behind.
const crashEnv = "SPLICED_TESTNET_CRASH"

func TestMain(m *testing.M) {
	if os.Getenv(crashEnv) != "" {
		leaveBehind()
	}
	os.Exit(m.Run())
}

func TestChainCarriesIP(t *testing.T) {
	testnet.Need(t, "root", "netns")
	testnet.Leaks(t)
	chain := newChain(t)
	for _, address := range []string{testnet.AddrC, "10.85.7.9", "[" + testnet.Addr6C + "]"} {
		ln, err := chain.C.Listen("tcp", address+":0")
		if err != nil {
			t.Fatal(err)
		}
		greet(t, chain.A, ln)
		ln.Close()
	}
}

func TestDoRestoresTheThread(t *testing.T) {
	testnet.Need(t, "root", "netns")
	testnet.Leaks(t)
	ns, err := testnet.New("x")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	outside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var inside string
	if err := ns.Do(func() error {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if inside == outside {
		t.Errorf("Do ran in %s, the namespace of the test", inside)
	}
	failure := errors.New("failure")
	if err := ns.Do(func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("Do returned %v, want the function's error", err)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(tasks) == 0 {
		t.Fatal(tasks, err)
	}
	for _, task := range tasks {
		if now, err := os.Readlink(task); err == nil && now != outside {
			t.Errorf("%s is in %s after Do, want %s", task, now, outside)
		}
	}
}

func TestSysctlIsInside(t *testing.T) {
	testnet.Need(t, "root", "netns")
	testnet.Leaks(t)
	ns, err := testnet.New("x")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	const file = "/proc/sys/net/ipv4/ip_local_port_range"
	outside, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Sysctl("net.ipv4.ip_local_port_range", "2000 3000"); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(file)
	if err != nil || string(after) != string(outside) {
		t.Errorf("outside is %q now, %v; want %q", after, err, outside)
	}
	err = ns.Do(func() error {
		inside, err := os.ReadFile(file)
		if got := strings.Fields(string(inside)); err == nil && (len(got) != 2 || got[0] != "2000") {
			err = fmt.Errorf("inside is %q", inside)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLoseAndHeal(t *testing.T) {
	testnet.Need(t, "root", "netns", "peers")
	testnet.Leaks(t)
	chain := newChain(t)
	ln, err := chain.C.Listen("tcp", testnet.AddrC+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := chain.C.Lose(t.Context(), 1000); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if conn, err := chain.A.Dial(short, "tcp", ln.Addr().String()); err == nil {
		conn.Close()
		t.Error("connected although everything is lost")
	}
	if err := chain.C.Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	greet(t, chain.A, ln)
}

func TestReapRemovesWhatACrashLeft(t *testing.T) {
	testnet.Need(t, "root", "netns")
	testnet.Leaks(t)
	foreign, own := mountForeign(t), newChain(t)

	crash := exec.Command(os.Args[0])
	crash.Env = append(os.Environ(), crashEnv+"=1")
	crash.Stderr = os.Stderr
	out, err := crash.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := crash.Start(); err != nil {
		t.Fatal(err)
	}
	var name string
	var pid int
	_, scanErr := fmt.Fscan(bufio.NewReader(out), &name, &pid)
	if err := crash.Process.Kill(); err != nil {
		t.Error(err)
	}
	defer func() { _ = crash.Wait() }() // killed, as wanted; until then it is a zombie
	waitGone(t, crash.Process.Pid)
	if scanErr != nil {
		t.Fatal(scanErr)
	}

	removed, err := testnet.Reap()
	if err != nil {
		t.Fatal(err)
	}
	if len(removed) != 1 || removed[0] != name {
		t.Errorf("reaped %q, want %q", removed, name)
	}
	if _, err := os.Stat("/run/netns/" + name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the namespace is still there: %v", err)
	}
	waitGone(t, pid)
	for _, path := range []string{foreign, own.A.Path(), own.B.Path(), own.C.Path()} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("reaping touched %s: %v", path, err)
		}
	}
}

// A process of another PID namespace has a number there that says nothing here.
func TestReapLeavesOtherPIDNamespacesAlone(t *testing.T) {
	testnet.Need(t, "root", "netns")
	testnet.Leaks(t)
	other := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", os.Args[0])
	other.Env = append(os.Environ(), crashEnv+"=1")
	other.Stderr = os.Stderr
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait() // killed, as wanted
	}()
	var name string
	var pid int
	if _, err := fmt.Fscan(bufio.NewReader(out), &name, &pid); err != nil {
		t.Fatal(err)
	}
	// Its mount is in a mount namespace that ends with it; the name is here too.
	defer os.Remove("/run/netns/" + name)
	removed, err := testnet.Reap()
	if err != nil || slices.Contains(removed, name) {
		t.Errorf("reaped %q, %v; %s is in use", removed, err, name)
	}
	if _, err := os.Stat("/run/netns/" + name); err != nil {
		t.Error(err)
	}
}

func TestNeedFailsWhatIsRequired(t *testing.T) {
	t.Setenv("SPLICED_REQUIRE", "bpf,nonsense")
	for _, test := range []struct {
		need []string
		want string
	}{
		{[]string{"nonsense"}, "fatal"},
		{[]string{"rubbish"}, "skip"},
		{[]string{"rubbish", "nonsense"}, "fatal"},
		{nil, ""},
	} {
		rec := &recorder{TB: t}
		rec.run(func() { testnet.Need(rec, test.need...) })
		if rec.outcome != test.want {
			t.Errorf("Need(%q) ended as %q, want %q", test.need, rec.outcome, test.want)
		}
	}
}

func TestLeaksFindsThem(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the leak to go away")
	}
	rec := &recorder{TB: t}
	stop := make(chan struct{})
	testnet.Leaks(rec)
	go func() { <-stop }()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	for _, cleanup := range rec.cleanups {
		cleanup()
	}
	file.Close()
	close(stop)
	for _, want := range []string{"/dev/null", "TestLeaksFindsThem"} {
		if !strings.Contains(rec.message, want) {
			t.Errorf("the report does not name %s:\n%s", want, rec.message)
		}
	}
}

func newChain(t *testing.T) *testnet.Chain {
	t.Helper()
	chain, err := testnet.NewChain()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := chain.Close(); err != nil {
			t.Error(err)
		}
	})
	return chain
}

// greet connects from ns to ln and exchanges a byte.
func greet(t *testing.T, ns *testnet.Namespace, ln net.Listener) {
	t.Helper()
	accepted := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			_, err = conn.Write([]byte{42})
			conn.Close()
		}
		accepted <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := ns.Dial(ctx, "tcp", ln.Addr().String())
	if err != nil {
		ln.Close()
		<-accepted
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := io.ReadAll(conn)
	if err != nil || len(got) != 1 || got[0] != 42 {
		t.Errorf("read %v, %v", got, err)
	}
	if err := <-accepted; err != nil {
		t.Error(err)
	}
}

// mountForeign makes a namespace that looks nearly like the package's own but
// belongs to somebody else.
func mountForeign(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("spliced-foreign-%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("ip netns del: %v: %s", err, out)
		}
	})
	return "/run/netns/" + name
}

// leaveBehind makes a namespace and a process in it, names both and waits to
// be killed.
func leaveBehind() {
	ns, err := testnet.New("crash")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := ns.Start(cmd); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(ns.Name(), cmd.Process.Pid)
	_ = cmd.Wait()
	os.Exit(1)
}

// waitGone waits until a process that is not a child has ended.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still running: %s", pid, stat)
		}
	}
}

// recorder is a test whose end is looked at instead of suffered.
type recorder struct {
	testnet.TB
	outcome, message string
	cleanups         []func()
}

func (r *recorder) run(f func()) {
	defer func() {
		if p := recover(); p != nil && p != r {
			panic(p)
		}
	}()
	f()
}

func (r *recorder) end(outcome, format string, args ...any) {
	r.outcome, r.message = outcome, fmt.Sprintf(format, args...)
}

func (r *recorder) Errorf(format string, args ...any) { r.end("error", format, args...) }
func (r *recorder) Cleanup(f func())                  { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Fatalf(format string, args ...any) {
	r.end("fatal", format, args...)
	panic(r)
}

func (r *recorder) Skipf(format string, args ...any) {
	r.end("skip", format, args...)
	panic(r)
}

// Packets are overtaken by later ones; none is lost or changed.
func TestHold(t *testing.T) {
	testnet.Need(t, "root", "netns", "peers")
	testnet.Leaks(t)
	chain := newChain(t)
	held, err := chain.C.Hold(t.Context(), testnet.LinkCB, "meta length > 500")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := chain.C.Listen("tcp", testnet.AddrC+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := chain.A.Dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	sent, read := bytes.Repeat([]byte("spliced."), 100), make([]byte, 800)
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	packet, err := held.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = got.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := got.Read(read); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("what is held was received: %d bytes, %v", n, err)
	}
	if err := errors.Join(held.Pass(), held.Release(packet)); err != nil {
		t.Fatal(err)
	}
	_ = got.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(got, read); err != nil || !bytes.Equal(read, sent) {
		t.Errorf("bytes differ: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
	again, stop := context.WithCancel(t.Context())
	stop()
	held, err = chain.C.Hold(t.Context(), testnet.LinkCB, "meta length > 500")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := held.Next(again); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting in vain ends with %v", err)
	}
	if err := held.Close(); err != nil {
		t.Error(err)
	}
}

func TestReorder(t *testing.T) {
	testnet.Need(t, "root", "netns", "peers")
	testnet.Leaks(t)
	chain := newChain(t)
	stop, err := chain.A.Reorder(t.Context(), testnet.LinkAB, 200, 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := chain.C.Listen("tcp", testnet.AddrC+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := chain.A.Dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	const size = 4 << 20
	sent := bytes.Repeat([]byte("spliced."), size/8)
	go func() { _, _ = conn.Write(sent) }()
	_ = got.SetDeadline(time.Now().Add(30 * time.Second))
	read := make([]byte, size)
	if _, err := io.ReadFull(got, read); err != nil || !bytes.Equal(read, sent) {
		t.Errorf("bytes differ: %v", err)
	}
	stats, err := chain.C.ReadProcNet("netstat")
	if err != nil {
		t.Fatal(err)
	}
	names, values, _ := strings.Cut(string(stats), "\n")
	values, _, _ = strings.Cut(values, "\n")
	queued := "0"
	for i, name := range strings.Fields(names) {
		if name == "TCPOFOQueue" { // packets that came too early
			queued = strings.Fields(values)[i]
		}
	}
	if queued == "0" {
		t.Error("no packet was overtaken")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	greet(t, chain.A, ln)
}
