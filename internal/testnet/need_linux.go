package testnet

import (
	"fmt"

	"github.com/cilium/ebpf"
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
