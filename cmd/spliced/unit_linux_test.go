package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// The test binary is also the sandbox of a systemd unit: what is executed by it has the
// system calls of these numbers, and none that makes memory executable.
const beConfined = "SPLICED_TEST_CONFINED"

// A unit is what files of a service say together, by key, each word once.
type unit map[string][]string

// readUnit reads a unit and its drop-ins.
func readUnit(t *testing.T, files ...string) unit {
	t.Helper()
	u := make(unit)
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join("../../dist", file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
				u[key] = append(u[key], strings.Fields(value)...)
			}
		}
	}
	return u
}

// confine has a command run with the system calls that the unit allows.
func (u unit) confine(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	numbers := callNumbers(t)
	var allowed []string
	for name := range u.calls(t) {
		if n, ok := numbers[name]; ok && name != "setns" && name != "unshare" { // RestrictNamespaces
			allowed = append(allowed, strconv.Itoa(n))
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args = append([]string{exe, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = forEverybody(t, exe)
	cmd.Env = append(os.Environ(), beConfined+"="+strings.Join(allowed, ","))
}

// calls are the names of the system calls that the unit allows.
func (u unit) calls(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	var add func(name string)
	add = func(name string) {
		if !strings.HasPrefix(name, "@") {
			names[name] = true
			return
		}
		out, err := exec.Command("systemd-analyze", "syscall-filter", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(out), "\n")[1:] {
			if word := strings.TrimSpace(line); word != "" && !strings.HasPrefix(word, "#") {
				add(word)
			}
		}
	}
	for _, name := range u["SystemCallFilter"] {
		if strings.HasPrefix(name, "~") {
			t.Fatalf("SystemCallFilter=%s: not a list of what is allowed", name)
		}
		add(name)
	}
	return names
}

// callNumbers are those of this architecture, by name, as package unix has them.
func callNumbers(t *testing.T) map[string]int {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "zsysnum_linux_"+runtime.GOARCH+".go"))
	if err != nil {
		t.Fatal(err)
	}
	numbers := make(map[string]int)
	for line := range strings.Lines(string(b)) {
		var name string
		var n int
		if _, err := fmt.Sscanf(line, "\tSYS_%s = %d", &name, &n); err == nil {
			numbers[strings.ToLower(name)] = n
		}
	}
	return numbers
}

// runConfined is what beConfined is about.
func runConfined(args []string) error {
	const (
		number      = 0 // of struct seccomp_data
		allow, deny = 0x7fff0000, 0x00050000 | uint32(syscall.EPERM)
		noNewPrivs  = 38 // PR_SET_NO_NEW_PRIVS
		noExecGain  = 65 // PR_SET_MDWE, Linux 6.3: as MemoryDenyWriteExecute
		setSeccomp  = 22 // PR_SET_SECCOMP
		filterMode  = 2
	)
	runtime.LockOSThread()
	ret := func(k uint32) syscall.SockFilter {
		return syscall.SockFilter{Code: syscall.BPF_RET | syscall.BPF_K, K: k}
	}
	code := []syscall.SockFilter{{Code: syscall.BPF_LD | syscall.BPF_W | syscall.BPF_ABS, K: number}}
	for _, text := range strings.Split(os.Getenv(beConfined), ",") {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return err
		}
		code = append(code, syscall.SockFilter{Code: syscall.BPF_JMP | syscall.BPF_JEQ | syscall.BPF_K, K: uint32(n), Jf: 1}, ret(allow))
	}
	code = append(code, ret(deny))
	prog := syscall.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	for _, call := range [][3]uintptr{{noNewPrivs, 1}, {noExecGain, 1}, {setSeccomp, filterMode, uintptr(unsafe.Pointer(&prog))}} {
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, call[0], call[1], call[2], 0, 0, 0); errno != 0 && call[0] != noExecGain {
			return fmt.Errorf("prctl %d: %w", call[0], errno)
		}
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, beConfined+"=") })
	return syscall.Exec(args[0], args, env)
}
