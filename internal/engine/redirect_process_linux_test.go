package engine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/spliced-io/spliced/internal/testnet"
)

const (
	redirectEnv = "SPLICED_TEST_REDIRECT"
	forbidEnv   = "SPLICED_TEST_FORBID" // see forbid
)

// passAll is a socket filter that takes everything.
func passAll() *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
	}}
}

// TestHelperRedirect is the process of the tests below.
func TestHelperRedirect(t *testing.T) {
	switch os.Getenv(redirectEnv) {
	case "":
		t.Skip("for other tests")
	case "carry": // until it is killed
		var r Reactor
		plane, err := r.sockmap.hold(0)
		if err != nil {
			t.Fatal(err)
		}
		o := startRedirected(t, &r, Limits{})
		o.carry()
		o.because(Sockmap, WhyRedirected)
		maps, programs, err := plane.IDs()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("carries", len(maps), len(programs), strings.Trim(fmt.Sprint(maps, programs), "[]"))
		_, _ = os.Stdin.Read(make([]byte, 1))
	case "refused": // by another engine, since the kernel refuses to enter a socket
		testnet.Leaks(t)
		var r Reactor
		empty := emptyMaps(t, &r)
		forbid(t, os.Getenv(forbidEnv))
		o := startRedirected(t, &r, Limits{})
		o.carry()
		d := o.Stats().AToB
		fmt.Printf("refused %v because of %v\n", d.Engine, d.Why)
		o.end()
		empty()
	case "open": // and say what is in the way
		forbid(t, os.Getenv(forbidEnv))
		testnet.Leaks(t)
		var r Reactor
		_, err := r.Plan(Plan{Kind: Sockmap})
		fmt.Printf("refused %v\n", err)
		fds, _ := ends(t)
		defer syscall.Close(fds[0])
		defer syscall.Close(fds[1])
		if _, err := r.Start(Spec{Kind: Sockmap, A: fds[0], B: fds[1], Own: true}); err == nil {
			t.Error("a session was started")
		}
		r.sockmap.trim()
	}
}

func helper(t *testing.T, what string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperRedirect$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), redirectEnv+"="+what)
	cmd.Stderr = os.Stderr
	return cmd
}

// Killed with -9, a process leaves no program and no map.
func TestRedirectKilled(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	cmd := helper(t, "carry")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "carries 4 3 ") {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("want 4 maps and 3 programs, have %q, %v", line, err)
	}
	var ids []uint32
	for _, f := range strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(line))[3:] {
		var id uint32
		if _, err := fmt.Sscan(f, &id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	exists := func() (left []string) {
		for i, id := range ids {
			if i < 4 {
				if m, err := ebpf.NewMapFromID(ebpf.MapID(id)); err == nil {
					m.Close()
					left = append(left, fmt.Sprint("map ", id))
				}
			} else if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id)); err == nil {
				p.Close()
				left = append(left, fmt.Sprint("program ", id))
			}
		}
		return left
	}
	if left := exists(); len(left) != len(ids) {
		t.Fatalf("only %v of %v are there while it runs", left, ids)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(patience); len(exists()) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("left by a killed process: %v", exists())
		}
	}
}

// What is missing is said, and nothing is half made: see the helper's checks.
func TestRedirectCannot(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	for _, c := range []struct {
		name string
		want string // in the error
		how  func(*exec.Cmd)
	}{
		{"without-privileges", "CAP_BPF", func(cmd *exec.Cmd) {
			drop(cmd, "-all")
		}},
		{"without-CAP_BPF", "CAP_BPF", func(cmd *exec.Cmd) {
			drop(cmd, "-bpf,-sys_admin")
		}},
		{"without-CAP_NET_ADMIN", "CAP_NET_ADMIN", func(cmd *exec.Cmd) {
			drop(cmd, "-net_admin,-sys_admin")
		}},
		{"without-CAP_PERFMON", "CAP_PERFMON", func(cmd *exec.Cmd) {
			drop(cmd, "-perfmon,-sys_admin")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := helper(t, "open")
			c.how(cmd)
			out, err := cmd.Output()
			if err != nil {
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					t.Fatalf("%v: %s", err, out)
				}
				t.Fatal(err)
			}
			line, _, _ := strings.Cut(string(out), "\n")
			t.Log(line)
			if !strings.HasPrefix(line, "refused ") || !strings.Contains(line, c.want) {
				t.Errorf("%q, want %s named", line, c.want)
			}
		})
	}
}

// What a kernel without a type of map or program, one whose limit of locked
// memory is reached (before Linux 5.11), or one that refuses a socket answers,
// it is made to answer here by seccomp(2), which sees which command of bpf(2) is
// called and no more.
func TestRedirectRefusedByTheKernel(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	for _, c := range []struct {
		name, what, forbid string
		want               []string
	}{
		{"no-bpf", "open", "all 38", []string{"function not implemented"}},
		{"no-map-type", "open", "0 22", []string{"make a BPF map of type SockHash", ": invalid argument"}},
		{"locked-memory", "open", "0 1", []string{"no capability is missing", "a limit of locked memory", "make a BPF map", ": operation not permitted"}},
		{"no-memory", "open", "0 12", []string{"for 16384 sockets: cannot allocate memory"}},
		{"no-program-type", "open", "5 22", []string{"load the BPF programs", ": invalid argument"}},
		{"no-attach-type", "open", "8 22", []string{"attach the verdict program: invalid argument"}},
		{"ulp", "refused", "2 22", []string{"copy because of sockmap-ulp"}},
		{"closing", "refused", "2 95", []string{"copy because of sockmap-closing"}},
		{"foreign", "refused", "2 16", []string{"copy because of sockmap-foreign"}},
		{"full", "refused", "2 7", []string{"copy because of sockmap-full"}},
		{"no-memory-for-a-socket", "refused", "2 12", []string{"copy because of sockmap-full"}},
		{"something-else", "refused", "2 1", []string{"copy because of sockmap-refused-by-kernel"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := helper(t, c.what)
			cmd.Env = append(cmd.Env, forbidEnv+"="+c.forbid)
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			line, _, _ := strings.Cut(string(out), "\n")
			t.Log(line)
			for _, want := range append(c.want, "refused ") {
				if !strings.Contains(line, want) {
					t.Errorf("%q, want %q in it", line, want)
				}
			}
		})
	}
}

// forbid has a command of bpf(2), or all of them, fail in this process from here
// on: "COMMAND ERRNO". Nothing is forbidden by an empty string.
func forbid(t *testing.T, what string) {
	t.Helper()
	if what == "" {
		return
	}
	var command, errno uint32
	all := strings.HasPrefix(what, "all ")
	if _, err := fmt.Sscan(strings.TrimPrefix(what, "all "), &errno); all && err != nil {
		t.Fatal(err)
	}
	if !all {
		if _, err := fmt.Sscan(what, &command, &errno); err != nil {
			t.Fatal(err)
		}
	}
	const (
		number, first    = 0, 16 // of struct seccomp_data: the call's, and its first argument's lower half
		fail, allow      = 0x00050000, 0x7fff0000
		setFilter, tsync = 1, 1 // seccomp(2): SECCOMP_SET_MODE_FILTER for all threads
	)
	calls, known := map[string]struct{ bpf, seccomp uint32 }{"amd64": {321, 317}, "arm64": {280, 277}}[runtime.GOARCH]
	if !known {
		t.Fatalf("the numbers of the system calls are not known for %s", runtime.GOARCH)
	}
	load := func(at uint32) syscall.SockFilter {
		return syscall.SockFilter{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, K: at}
	}
	unless := func(k uint32, skip uint8) syscall.SockFilter {
		return syscall.SockFilter{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, K: k, Jf: skip}
	}
	ret := func(k uint32) syscall.SockFilter {
		return syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: k}
	}
	code := []syscall.SockFilter{load(number), unless(calls.bpf, 3), load(first), unless(command, 1), ret(fail | errno), ret(allow)}
	if all {
		code = []syscall.SockFilter{load(number), unless(calls.bpf, 1), ret(fail | errno), ret(allow)}
	}
	prog := syscall.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if _, _, errno := syscall.Syscall(uintptr(calls.seccomp), setFilter, tsync, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		t.Fatal(errno)
	}
}

// drop has cmd run by setpriv(1) without some capabilities.
func drop(cmd *exec.Cmd, caps string) {
	cmd.Args = append([]string{"setpriv", "--bounding-set", caps, "--inh-caps", caps, "--"}, cmd.Args...)
	cmd.Path = "/usr/bin/setpriv"
	cmd.Err = nil
}
