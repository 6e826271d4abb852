package probe

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"

	"github.com/spliced-io/spliced/internal/sys"
)

// bpfPrograms and bpfMaps are the types that the engines sockmap and wire and
// the bench are made of, by the names that the kernel gives them.
var bpfPrograms = []struct {
	name string
	typ  ebpf.ProgramType
}{
	{"sk_skb", ebpf.SkSKB},
	{"sk_msg", ebpf.SkMsg},
	{"sched_cls", ebpf.SchedCLS},
	{"socket_filter", ebpf.SocketFilter},
}

var bpfMaps = []struct {
	name string
	spec ebpf.MapSpec
}{
	{"array", ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}},
	{"hash", ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 1}},
	{"ringbuf", ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 64 << 10}}, // a multiple of each size of a page
	{"sockmap", ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 4, MaxEntries: 1}},
	{"sockhash", ebpf.MapSpec{Type: ebpf.SockHash, KeySize: 8, ValueSize: 8, MaxEntries: 1}},
}

// bpfProgram loads a program of a type that does nothing, and attaches it to
// nothing.
func bpfProgram(kind string, typ ebpf.ProgramType) Capability {
	name := "bpf-program." + kind
	p, err := loadProgram(typ, asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()})
	if err != nil {
		return failed(name, err)
	}
	_ = p.Close()
	return yes(name, "a program was loaded")
}

// bpfMap makes a map of a type.
func bpfMap(kind string, spec ebpf.MapSpec) Capability {
	name := "bpf-map." + kind
	m, err := makeMap(spec)
	if err != nil {
		return failed(name, err)
	}
	_ = m.Close()
	return yes(name, "a map was made")
}

func loadProgram(typ ebpf.ProgramType, code asm.Instructions) (*ebpf.Program, error) {
	_ = rlimit.RemoveMemlock() // before Linux 5.11 programs and maps count against it
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: typ, License: "Dual BSD/GPL", Instructions: code})
	return p, bpfError("load a program", err)
}

func makeMap(spec ebpf.MapSpec) (*ebpf.Map, error) {
	_ = rlimit.RemoveMemlock()
	m, err := ebpf.NewMap(&spec)
	return m, bpfError("make a map", err)
}

// bpfError leaves of the loader's error, which may have several lines, what the
// kernel said, and names the capabilities that are missing.
func bpfError(what string, err error) error {
	if err == nil {
		return nil
	}
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		err = errno
	case errors.Is(err, ebpf.ErrNotSupported):
		err = syscall.EOPNOTSUPP
	}
	return fmt.Errorf("%s: %w", what, sys.Because(err, sys.CapBPF, sys.CapNetAdmin))
}
