package netbench_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/netbench"
	"github.com/spliced-io/spliced/internal/testnet"
)

// Who may not load programs measures what needs none, and is told what is
// missing.
func TestSockmapWithoutPrivileges(t *testing.T) {
	testnet.Need(t, "root")
	testnet.Leaks(t)
	dir, err := os.MkdirTemp("", "spliced-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "bench")
	if err := os.WriteFile(exe, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, sockmapArg)
	cmd.Dir = "/"
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	var file netbench.File
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	if failures := file.Failures(); len(failures) > 0 {
		t.Errorf("failed: %v", failures)
	}
	for _, r := range file.Results {
		switch {
		case r.Path == "tx-normal" && (r.Missing != "" || r.Throughput == nil):
			t.Errorf("%s, %s: %+v", r.Path, r.Workload, r)
		case r.Path != "tx-normal" && !strings.Contains(r.Missing, "CAP_BPF"):
			t.Errorf("%s, %s: missing %q, want CAP_BPF named", r.Path, r.Workload, r.Missing)
		}
	}
}
