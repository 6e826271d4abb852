package engine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/spliced-io/spliced/internal/testnet"
)

const redirectEnv = "SPLICED_TEST_REDIRECT"

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
	case "open": // and say what is in the way
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

// drop has cmd run by setpriv(1) without some capabilities.
func drop(cmd *exec.Cmd, caps string) {
	cmd.Args = append([]string{"setpriv", "--bounding-set", caps, "--inh-caps", caps, "--"}, cmd.Args...)
	cmd.Path = "/usr/bin/setpriv"
	cmd.Err = nil
}
