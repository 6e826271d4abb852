package netbench_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/netbench"
	"github.com/spliced-io/spliced/internal/testnet"
)

// Who may not load programs measures what needs none, and is told what is
// missing.
func TestSockmapWithoutPrivileges(t *testing.T) {
	testnet.Need(t, "root")
	testnet.Leaks(t)
	const nobody = 65534
	cmd := testnet.AsUser(t, nobody, sockmapArg)
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
