package testnet

import (
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// A Sockmap is a sockmap or sockhash as other programs on a machine use them:
// proxies, service meshes, tracers.
type Sockmap struct {
	t TB
	m *ebpf.Map
}

// SockmapPrograms are the programs that a [Sockmap] can have: none; a verdict
// that passes what is received to the socket that received it; a verdict that
// passes what is sent; one that puts what is sent straight into the receive
// queue of the socket with the key 1.
var SockmapPrograms = []string{"none", "skb-pass", "msg-pass", "msg-to-1"}

// NewSockmap makes one (ebpf.SockMap or ebpf.SockHash), which lives until the
// test ends. There is one program more, skb-to-1: a verdict that hands what is
// received to be sent by the socket with the key 1.
func NewSockmap(t TB, typ ebpf.MapType, program string) *Sockmap {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: typ, KeySize: 4, ValueSize: 4, MaxEntries: 16})
	if err != nil {
		t.Fatalf("make a %v: %v", typ, err)
	}
	t.Cleanup(func() { m.Close() })
	spec := &ebpf.ProgramSpec{License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}}
	switch program {
	case "none":
		return &Sockmap{t, m}
	case "skb-pass":
		spec.Type, spec.AttachType = ebpf.SkSKB, ebpf.AttachSkSKBVerdict
	case "msg-pass":
		spec.Type, spec.AttachType = ebpf.SkMsg, ebpf.AttachSkMsgVerdict
	case "skb-to-1":
		spec.Type, spec.AttachType = ebpf.SkSKB, ebpf.AttachSkSKBVerdict
		spec.Instructions = redirect(typ, m.FD(), asm.FnSkRedirectMap, asm.FnSkRedirectHash, 0)
	case "msg-to-1":
		spec.Type, spec.AttachType = ebpf.SkMsg, ebpf.AttachSkMsgVerdict
		const ingress = 1
		spec.Instructions = redirect(typ, m.FD(), asm.FnMsgRedirectMap, asm.FnMsgRedirectHash, ingress)
	default:
		t.Fatalf("unknown program %q", program)
	}
	p, err := ebpf.NewProgram(spec)
	if err != nil {
		t.Fatalf("load %s: %v", program, err)
	}
	t.Cleanup(func() { p.Close() })
	attach := link.RawAttachProgramOptions{Target: m.FD(), Program: p, Attach: spec.AttachType}
	if err := link.RawAttachProgram(attach); err != nil {
		t.Fatalf("attach %s: %v", program, err)
	}
	t.Cleanup(func() {
		_ = link.RawDetachProgram(link.RawDetachProgramOptions{Target: m.FD(), Program: p, Attach: spec.AttachType})
	})
	return &Sockmap{t, m}
}

// redirect returns toMap(ctx, m, 1, flags), or toHash for a sockhash.
func redirect(typ ebpf.MapType, m int, toMap, toHash asm.BuiltinFunc, flags int32) asm.Instructions {
	helper := toMap
	key := asm.Instructions{asm.Mov.Imm(asm.R3, 1)}
	if typ == ebpf.SockHash {
		helper = toHash
		key = asm.Instructions{
			asm.StoreImm(asm.RFP, -4, 1, asm.Word),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, -4),
		}
	}
	return append(append(asm.Instructions{asm.LoadMapPtr(asm.R2, m)}, key...),
		asm.Mov.Imm(asm.R4, flags), helper.Call(), asm.Return())
}

// Put enters a connected TCP socket.
func (s *Sockmap) Put(key uint32, c syscall.Conn) {
	s.t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		s.t.Fatalf("enter a socket into a sockmap: %v", err)
	}
	if err := raw.Control(func(fd uintptr) { s.PutDescriptor(key, int(fd)) }); err != nil {
		s.t.Fatalf("enter a socket into a sockmap: %v", err)
	}
}

// PutDescriptor is Put for who has only that.
func (s *Sockmap) PutDescriptor(key uint32, fd int) {
	s.t.Helper()
	if err := s.m.Put(key, uint32(fd)); err != nil {
		s.t.Fatalf("enter a socket into a sockmap: %v", err)
	}
}

// Delete takes a socket out.
func (s *Sockmap) Delete(key uint32) error { return s.m.Delete(key) }
