package sockmap

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// Pairs is how many pairs a plane has room for unless told otherwise.
const Pairs = 8192

const laneSize = int(unsafe.Sizeof(bpf.SockmapLane{}))

// A Plane is the program with its maps. Nothing of it is pinned: it ends with
// the process, however that ends.
type Plane struct {
	objects bpf.SockmapObjects
	memory  []byte // of the map lanes
	netns   uint64

	mu   sync.Mutex
	free []uint32 // pairs
}

// Open loads the program, with room for that many pairs; 0 is [Pairs]. The
// error says what is missing: capabilities, a program or map type, memory.
func Open(pairs uint32) (_ *Plane, err error) {
	if pairs == 0 {
		pairs = Pairs
	}
	p := new(Plane)
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if p.netns, err = ownNamespace(); err != nil {
		return nil, err
	}
	_ = rlimit.RemoveMemlock() // before Linux 5.11 maps count against it
	if err := p.load(pairs); err != nil {
		return nil, because(err)
	}
	// It ends with the map.
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: p.objects.Sources.FD(), Program: p.objects.SockmapVerdict, Attach: ebpf.AttachSkSKBVerdict,
	})
	if err != nil {
		return nil, because(fmt.Errorf("attach the verdict program: %w", reason(err)))
	}
	if p.memory, err = sys.MapShared(p.objects.Lanes.FD(), 2*int(pairs)*laneSize); err != nil {
		return nil, fmt.Errorf("map lanes: %w", err)
	}
	for i := pairs; i > 0; i-- {
		p.free = append(p.free, i-1)
	}
	return p, nil
}

func (p *Plane) load(pairs uint32) error {
	spec, err := bpf.LoadSockmap()
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	// One by one: the loader's own errors name everything but what was refused. The
	// one that is mapped comes last (lanes): where the loader can't make it, it
	// believes that the kernel is too old.
	made := make(map[string]*ebpf.Map)
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(spec.Maps))) {
		m := spec.Maps[name]
		m.MaxEntries = 2 * pairs
		if made[name], err = ebpf.NewMap(m); err != nil {
			return fmt.Errorf("make a BPF map of type %v for %d sockets: %w", m.Type, m.MaxEntries, reason(err))
		}
		defer made[name].Close() // the collection has its own descriptors
	}
	if err := spec.LoadAndAssign(&p.objects, &ebpf.CollectionOptions{MapReplacements: made}); err != nil {
		return fmt.Errorf("load the BPF programs (types %v, %v and %v): %w", ebpf.SocketFilter, ebpf.SchedCLS, ebpf.SkSKB, reason(err))
	}
	return nil
}

// reason leaves of a loader's error what the kernel said.
func reason(err error) error {
	var verifier *ebpf.VerifierError
	var errno syscall.Errno
	switch {
	case errors.As(err, &verifier) && len(verifier.Log) > 0:
		return verifier
	case errors.As(err, &errno):
		return errno
	}
	return err
}

// because says why the kernel may have refused what should work: which
// capabilities are missing, or that none is.
func because(err error) error {
	why := sys.Because(err, sys.CapBPF, sys.CapNetAdmin, sys.CapPerfmon)
	if why == err && errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("no capability is missing, but seccomp, a security module or a limit of locked memory is in the way: %w", err)
	}
	return why
}

func ownNamespace() (uint64, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer sys.Close(fd)
	cookie, err := sys.NetnsCookie(fd)
	if err != nil {
		return 0, fmt.Errorf("look at network namespace: %w", err)
	}
	return cookie, nil
}

// Close lets everything go. No pair may be left.
func (p *Plane) Close() {
	if p.memory != nil {
		_ = sys.Unmap(p.memory)
		p.memory = nil
	}
	_ = p.objects.Close()
}

func (p *Plane) lane(i uint32) *bpf.SockmapLane {
	return (*bpf.SockmapLane)(unsafe.Pointer(&p.memory[int(i)*laneSize]))
}

func (p *Plane) take() (uint32, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.free)
	if n == 0 {
		return 0, false
	}
	i := p.free[n-1]
	p.free = p.free[:n-1]
	return i, true
}

func (p *Plane) give(i uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, i)
}

// look has the program write down a drain's write_seq.
func (p *Plane) look(r *bpf.SockmapRoute) error {
	data := unsafe.Slice((*byte)(unsafe.Pointer(r)), unsafe.Sizeof(*r))
	ret, err := p.objects.SockmapLook.Run(&ebpf.RunOptions{Data: data})
	if err != nil {
		return fmt.Errorf("run sockmap_look: %w", err)
	}
	if ret != 0 {
		return fmt.Errorf("look at the drain: %w", syscall.Errno(ret))
	}
	return nil
}

// Sizes counts what is in the maps.
func (p *Plane) Sizes() (members, sources, routes int) {
	count := func(m *ebpf.Map) (n int) {
		var key uint64
		for err := m.NextKey(nil, &key); err == nil; err = m.NextKey(key, &key) {
			n++
		}
		return n
	}
	return count(p.objects.Members), count(p.objects.Sources), count(p.objects.Routes)
}

// IDs are what the kernel calls the maps and programs by.
func (p *Plane) IDs() (maps []ebpf.MapID, programs []ebpf.ProgramID, err error) {
	o := &p.objects
	for _, m := range []*ebpf.Map{o.Lanes, o.Members, o.Routes, o.Sources} {
		info, err := m.Info()
		if err != nil {
			return nil, nil, fmt.Errorf("look at map: %w", err)
		}
		if id, ok := info.ID(); ok {
			maps = append(maps, id)
		}
	}
	for _, prog := range []*ebpf.Program{o.SockmapFilter, o.SockmapLook, o.SockmapVerdict} {
		info, err := prog.Info()
		if err != nil {
			return nil, nil, fmt.Errorf("look at program: %w", err)
		}
		if id, ok := info.ID(); ok {
			programs = append(programs, id)
		}
	}
	return maps, programs, nil
}
