package netbench

import (
	"fmt"
	"maps"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// A sockmapRig is the sockets of one measurement, and the program on them.
// Nothing of it is pinned: it ends with the process, however that ends.
type sockmapRig struct {
	mode    sockmapMode
	sockets [4]int           // non-blocking; -1 where there is none
	bpf     *ebpf.Collection // nil without a program
}

// A refusedError says that this kernel or this user can't do what a mode needs.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// newSockmapRig connects the sockets, and has the mode's program see what it is
// to see. parse is what a stream parser cuts the stream into, 0 for none.
func newSockmapRig(mode sockmapMode, parse int) (_ *sockmapRig, err error) {
	r := &sockmapRig{mode: mode, sockets: [4]int{-1, -1, -1, -1}}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	for _, ends := range [][2]int{{socketC1, socketP1}, {socketC2, socketP2}} {
		if r.sockets[ends[0]], r.sockets[ends[1]], err = loopbackPair(); err != nil {
			return nil, err
		}
	}
	if mode.program == noProgram {
		return r, nil
	}
	if err := r.load(parse); err != nil {
		return nil, &refusedError{sys.Because(err, sys.CapBPF, sys.CapNetAdmin, sys.CapPerfmon)}
	}
	for key, socket := range mode.members {
		if socket < 0 {
			continue
		}
		if err := r.bpf.Maps[bpf.SockbenchMapSockets].Put(uint32(key), uint32(r.sockets[socket])); err != nil {
			return nil, &refusedError{fmt.Errorf("put a socket into the map: %w", err)}
		}
	}
	return r, nil
}

// load loads the programs and attaches them to the map, which has no socket yet.
func (r *sockmapRig) load(parse int) (err error) {
	if !r.mode.received() {
		parse = 0
	}
	if r.bpf, err = loadSockmapPrograms(r.mode, parse); err != nil {
		return err
	}
	attach := map[string]ebpf.AttachType{r.mode.program: ebpf.AttachSkMsgVerdict}
	switch {
	case parse > 0:
		attach = map[string]ebpf.AttachType{r.mode.program: ebpf.AttachSkSKBStreamVerdict, skbParse: ebpf.AttachSkSKBStreamParser}
	case r.mode.received():
		attach[r.mode.program] = ebpf.AttachSkSKBVerdict
	}
	for name, typ := range attach {
		err := link.RawAttachProgram(link.RawAttachProgramOptions{
			Target: r.bpf.Maps[bpf.SockbenchMapSockets].FD(), Program: r.bpf.Programs[name], Attach: typ,
		})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
	}
	return nil
}

// loadSockmapPrograms loads what a mode needs, and attaches nothing.
func loadSockmapPrograms(mode sockmapMode, parse int) (*ebpf.Collection, error) {
	spec, err := bpf.LoadSockbench()
	if err != nil {
		return nil, fmt.Errorf("read programs: %w", err)
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool {
		return name != mode.program && (name != skbParse || parse == 0)
	})
	var flags uint64
	if mode.ingress {
		const toReceiveQueue = 1 // BPF_F_INGRESS
		flags = toReceiveQueue
	}
	if err := spec.Variables[bpf.SockbenchVarRedirectFlags].Set(flags); err != nil {
		return nil, fmt.Errorf("set a program's variable: %w", err)
	}
	if err := spec.Variables[bpf.SockbenchVarMessageBytes].Set(uint32(parse)); err != nil {
		return nil, fmt.Errorf("set a program's variable: %w", err)
	}
	_ = rlimit.RemoveMemlock() // before Linux 5.11 maps count against it
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	return collection, nil
}

// seen returns what the program has counted.
func (r *sockmapRig) seen() (seen bpf.SockbenchSeen, err error) {
	if err := r.bpf.Maps[bpf.SockbenchMapCounted].Lookup(uint32(0), &seen); err != nil {
		return seen, fmt.Errorf("read what the program has counted: %w", err)
	}
	return seen, nil
}

// close closes the sockets while they are in the map: a socket that leaves it
// with something unread has the kernel warn.
func (r *sockmapRig) close() {
	for _, fd := range r.sockets {
		if fd >= 0 {
			_ = sys.Close(fd)
		}
	}
	if r.bpf != nil {
		r.bpf.Close()
	}
}

// loopbackPair returns the ends of a new TCP connection, non-blocking.
func loopbackPair() (near, far int, err error) {
	const flags = syscall.SOCK_STREAM | syscall.SOCK_CLOEXEC
	fail := func(what string, err error) (int, int, error) {
		for _, fd := range []int{near, far} {
			if fd >= 0 {
				_ = sys.Close(fd)
			}
		}
		return -1, -1, fmt.Errorf("connect over loopback: %s: %w", what, err)
	}
	near, far = -1, -1
	listener, err := syscall.Socket(syscall.AF_INET, flags, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer sys.Close(listener)
	if err := syscall.Bind(listener, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fail("bind", err)
	}
	if err := syscall.Listen(listener, 1); err != nil {
		return fail("listen", err)
	}
	address, err := syscall.Getsockname(listener)
	if err != nil {
		return fail("getsockname", err)
	}
	if near, err = syscall.Socket(syscall.AF_INET, flags, 0); err != nil {
		return fail("socket", err)
	}
	if err := syscall.Connect(near, address); err != nil {
		return fail("connect", err)
	}
	if far, _, err = syscall.Accept4(listener, syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK); err != nil {
		return fail("accept", err)
	}
	if err := syscall.SetNonblock(near, true); err != nil {
		return fail("fcntl", err)
	}
	return near, far, nil
}
