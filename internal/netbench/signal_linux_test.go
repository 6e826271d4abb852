package netbench_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/netbench"
	"github.com/spliced-io/spliced/internal/testnet"
)

func TestSignalsLeaveNothing(t *testing.T) {
	for _, topology := range []string{netbench.TopologyNetns, netbench.TopologyLoopback} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
			t.Run(fmt.Sprintf("%s/%v", topology, sig), func(t *testing.T) {
				testnet.Need(t, "peers")
				if topology == netbench.TopologyNetns {
					testnet.Need(t, "root", "netns")
				}
				testnet.Leaks(t)
				signalled(t, topology, sig)
			})
		}
	}
}

func signalled(t *testing.T, topology string, sig syscall.Signal) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, runArg, topology)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := false
	defer func() {
		if !waited {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "measuring" {
		t.Fatalf("it says %q, %v", lines.Text(), lines.Err())
	}
	children := descendants(t, cmd.Process.Pid)
	const least = 4 // source, sink, nginx and a worker of it
	if len(children) < least {
		t.Errorf("%d processes while it measures, want %d or more", len(children), least)
	}
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	interrupted := lines.Scan() && lines.Text() == "interrupted"
	err = cmd.Wait()
	waited = true
	if sig == syscall.SIGINT && (!interrupted || err != nil) {
		t.Errorf("interrupted is %t, and it ended with %v", interrupted, err)
	}

	for _, child := range children {
		waitEnded(t, child)
	}
	removed, err := testnet.Reap()
	if err != nil {
		t.Fatal(err)
	}
	removed = slices.DeleteFunc(removed, func(name string) bool {
		return !strings.HasPrefix(name, fmt.Sprintf("spliced-%d-", cmd.Process.Pid))
	})
	want := 0
	if sig == syscall.SIGKILL && topology == netbench.TopologyNetns {
		want = 3
	}
	if len(removed) != want {
		t.Errorf("%d namespaces were left, want %d: %q", len(removed), want, removed)
	}
	if sig == syscall.SIGKILL {
		// The next run takes away what this one could not.
		t.Setenv("TMPDIR", dir)
		o := quickOptions(t)
		o.Paths, o.Workloads = []string{netbench.PathDirect}, []string{netbench.WorkloadBulk}
		run(t, o)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("files left behind: %q, %v", left, err)
	}
}

// descendants lists the processes below one, each with its start time.
func descendants(t *testing.T, root int) (found []string) {
	t.Helper()
	pids := []int{root}
	for len(pids) > 0 {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[0]))
		if err != nil {
			t.Fatal(err)
		}
		pids = pids[1:]
		for _, list := range lists {
			content, _ := os.ReadFile(list) // a thread may have ended
			for _, field := range strings.Fields(string(content)) {
				pid, err := strconv.Atoi(field)
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
				found = append(found, field)
			}
		}
	}
	return found
}

// waitEnded waits for a process that is not a child of this one.
func waitEnded(t *testing.T, pid string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("process %s is still there: %s", pid, stat)
			return
		}
	}
}
