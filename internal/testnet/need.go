package testnet

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
)

// Need skips the test if something is missing: "root", "override" (that the modes of
// files are nothing to it), "netns", "bpf", "fuse", "mptcp" (that the kernel speaks it), "cpus" (two of them), or
// other people's programs: "peers", "fio", "filesystems" (what makes them), "postgresql", "redis", "ssh" or "chromium". If
// SPLICED_REQUIRE (a comma list of root, netns, bpf, fuse, mptcp, cpus and peers) contains the missing
// one, it fails the test instead; root stands for override, and peers for all programs.
func Need(t TB, what ...string) {
	t.Helper()
	required := strings.Split(os.Getenv("SPLICED_REQUIRE"), ",")
	var missing []string
	for _, name := range what {
		err := available(name)
		if err == nil {
			continue
		}
		by := name
		switch {
		case name == "override":
			by = "root"
		case programs[name] != nil:
			by = "peers"
		}
		if slices.Contains(required, by) {
			t.Fatalf("SPLICED_REQUIRE names %s, but: %v", by, err)
		}
		missing = append(missing, fmt.Sprintf("%s: %v", name, err))
	}
	if missing != nil {
		t.Skipf("needs %s", strings.Join(missing, "; "))
	}
}

// Peers returns the programs that "peers" of [Need] stands for.
func Peers() []string { return programs["peers"] }

var programs = map[string][]string{
	"peers":       {"haproxy", "nginx", "socat", "iperf3", "nft"},
	"fio":         {"fio"},
	"filesystems": {"mkfs.ext4", "mkfs.xfs", "mkfs.btrfs"},
	"postgresql":  {"pg_createcluster", "psql", "pgbench"},
	"redis":       {"redis-server", "redis-cli", "redis-benchmark"},
	"ssh":         {"sshd", "ssh", "ssh-keygen"},
	"chromium":    {"chromium"},
	"systemd":     {"systemd-analyze", "systemd-sysusers", "systemd-tmpfiles"},
}

func available(name string) error {
	switch name {
	case "root":
		if euid := os.Geteuid(); euid != 0 {
			return fmt.Errorf("effective user id is %d", euid)
		}
		return nil
	case "netns":
		return haveNetns()
	case "bpf":
		return haveBPF()
	case "fuse":
		return haveFUSE()
	case "mptcp":
		return haveMPTCP()
	case "cpus":
		if n := runtime.NumCPU(); n < 2 {
			return fmt.Errorf("there is %d", n)
		}
		return nil
	case "override":
		return haveOverride()
	}
	if programs[name] == nil {
		return fmt.Errorf("unknown need %q: want root, override, netns, bpf, fuse, mptcp, cpus or one of %v", name, slices.Sorted(maps.Keys(programs)))
	}
	for _, program := range programs[name] {
		if _, err := exec.LookPath(program); err != nil {
			return err
		}
	}
	return nil
}
