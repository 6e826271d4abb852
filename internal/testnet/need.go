package testnet

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Need skips the test if something is missing: "root", "netns", "bpf", "peers",
// "fio" or "filesystems" (what makes them). If SPLICED_REQUIRE (a comma list of
// root, netns, bpf and peers) contains the missing one, it fails the test
// instead; peers stands for the last two as well.
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
		if programs[name] != nil {
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
	case "peers", "fio", "filesystems":
		for _, program := range programs[name] {
			if _, err := exec.LookPath(program); err != nil {
				return err
			}
		}
		return nil
	default:
		return fmt.Errorf("unknown need %q: want root, netns, bpf, peers, fio or filesystems", name)
	}
}
