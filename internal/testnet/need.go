package testnet

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Need skips the test if something is missing: "root", "netns", "bpf" or
// "peers". If SPLICED_REQUIRE (a comma list of these names) contains the missing
// one, it fails the test instead.
func Need(t TB, what ...string) {
	t.Helper()
	required := strings.Split(os.Getenv("SPLICED_REQUIRE"), ",")
	var missing []string
	for _, name := range what {
		err := available(name)
		if err == nil {
			continue
		}
		if slices.Contains(required, name) {
			t.Fatalf("SPLICED_REQUIRE names %s, but: %v", name, err)
		}
		missing = append(missing, fmt.Sprintf("%s: %v", name, err))
	}
	if missing != nil {
		t.Skipf("needs %s", strings.Join(missing, "; "))
	}
}

// Peers returns the programs that "peers" of [Need] stands for.
func Peers() []string { return []string{"haproxy", "nginx", "socat", "iperf3", "nft"} }

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
	case "peers":
		for _, peer := range Peers() {
			if _, err := exec.LookPath(peer); err != nil {
				return err
			}
		}
		return nil
	default:
		return fmt.Errorf("unknown need %q: want root, netns, bpf or peers", name)
	}
}
