package testnet

import (
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/sys"
)

func haveNetns() error {
	ns, err := New("probe")
	if err != nil {
		return err
	}
	return ns.Close()
}

func haveBPF() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("make a BPF map: %w", err)
	}
	return m.Close()
}

func haveFUSE() error {
	f, err := os.OpenFile(fuse, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func haveMPTCP() error {
	b, err := os.ReadFile("/proc/sys/net/mptcp/enabled")
	if err == nil && string(b) != "1\n" {
		err = fmt.Errorf("net.mptcp.enabled is %q", strings.TrimSpace(string(b)))
	}
	return err
}

// haveOverride is of root, to whom the modes of files are nothing.
func haveOverride() error {
	have, err := sys.GetCapabilities()
	if err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	const override, readSearch = 1 << 1, 1 << 2 // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
	if have.Effective&(override|readSearch) != override|readSearch {
		return fmt.Errorf("CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH are missing: capabilities %#x", have.Effective)
	}
	return nil
}
