package sockmaps

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// List looks into all sockmaps and sockhashes, by an iterator in BPF (Linux
// 5.10, with BTF). It needs CAP_SYS_ADMIN, by which maps of others are opened;
// the error says so. A map that goes away meanwhile is left out, and a socket
// that comes or goes meanwhile may be there or not.
func List() (l Listing, err error) {
	maps, err := sockmaps()
	if err != nil {
		return l, err
	}
	defer func() {
		for _, m := range maps {
			m.Close()
		}
	}()
	if len(maps) == 0 {
		return l, nil
	}
	_ = rlimit.RemoveMemlock() // before Linux 5.11 programs count against it
	var programs bpf.SockmapsPrograms
	if err := bpf.LoadSockmapsObjects(&programs, nil); err != nil {
		return l, because("load an iterator over sockmaps", err)
	}
	defer programs.Close()
	for _, m := range maps {
		described, err := describe(m)
		if err != nil {
			return l, err
		}
		members, err := membersOf(programs.SockmapsList, m, described.ID)
		if err != nil {
			return l, because(fmt.Sprintf("list sockmap %d", described.ID), err)
		}
		l.Maps = append(l.Maps, described)
		l.Members = append(l.Members, members...)
	}
	return l, nil
}

// sockmaps opens all of them.
func sockmaps() (maps []*ebpf.Map, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, m := range maps {
			m.Close()
		}
		maps = nil
	}()
	for id := ebpf.MapID(0); ; {
		id, err = ebpf.MapGetNextID(id)
		if errors.Is(err, syscall.ENOENT) {
			return maps, nil
		}
		if err != nil {
			return maps, because("list maps", err)
		}
		m, err := ebpf.NewMapFromID(id)
		switch {
		case errors.Is(err, syscall.ENOENT):
			continue // it has just gone
		case err != nil:
			return maps, because(fmt.Sprintf("open map %d", id), err)
		case m.Type() != ebpf.SockMap && m.Type() != ebpf.SockHash:
			m.Close()
			continue
		}
		maps = append(maps, m)
	}
}

// because names the capabilities that are missing, if some are.
func because(what string, err error) error {
	return fmt.Errorf("%s: %w", what, sys.Because(err, sys.CapSysAdmin, sys.CapBPF, sys.CapPerfmon))
}

func describe(m *ebpf.Map) (d Map, err error) {
	info, err := m.Info()
	if err != nil {
		return d, because("describe a sockmap", err)
	}
	id, _ := info.ID() // it was opened by it
	d = Map{ID: uint32(id), Name: info.Name, Type: info.Type.String(), Programs: []Program{}}
	for _, kind := range []struct {
		typ  ebpf.AttachType
		name string
	}{
		{ebpf.AttachSkSKBStreamParser, "stream-parser"},
		{ebpf.AttachSkSKBStreamVerdict, "stream-verdict"},
		{ebpf.AttachSkSKBVerdict, "skb-verdict"},
		{ebpf.AttachSkMsgVerdict, "msg-verdict"},
	} {
		attached, err := link.QueryPrograms(link.QueryOptions{Target: m.FD(), Attach: kind.typ})
		if errors.Is(err, syscall.EBUSY) {
			continue // one of the two kinds of verdict is attached, and it is not this
		}
		if err != nil {
			d.Unknown = err.Error()
			break
		}
		for _, p := range attached.Programs {
			d.Programs = append(d.Programs, Program{ID: uint32(p.ID), Name: programName(p.ID), Attach: kind.name})
		}
	}
	return d, nil
}

// programName is empty for a program that has none, or that has gone.
func programName(id ebpf.ProgramID) string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return ""
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return ""
	}
	return info.Name
}

func membersOf(program *ebpf.Program, m *ebpf.Map, id uint32) (members []Member, err error) {
	iter, err := link.AttachIter(link.IterOptions{Program: program, Map: m})
	if err != nil {
		return nil, err
	}
	defer iter.Close()
	reader, err := iter.Open()
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	// Each read(2) goes on at the begin of a bucket (sock_hash_seq_start in
	// net/core/sock_map.c): a small one finds the same sockets for ever, and one
	// that takes all that the kernel gathers at once finds some twice.
	const gathered = 64 << 10 // the kernel: 8 pages of 4 KiB
	buffered := bufio.NewReaderSize(reader, gathered)
	const most = 4 * gathered / int(unsafe.Sizeof(bpf.SockmapsMember{}))
	seen := map[bpf.SockmapsMember]bool{} // a socket may have several keys, too
	for again := 0; again < most; again++ {
		var raw bpf.SockmapsMember
		switch err := binary.Read(buffered, binary.NativeEndian, &raw); {
		case errors.Is(err, io.EOF):
			return members, nil
		case err != nil:
			return nil, fmt.Errorf("read the iterator: %w", err)
		}
		if !seen[raw] {
			again, seen[raw] = -1, true
			members = append(members, member(&raw, id))
		}
	}
	return nil, errors.New("the kernel's iterator finds the same sockets again and again")
}

func member(raw *bpf.SockmapsMember, id uint32) Member {
	m := Member{MapID: id, Inode: raw.Inode, Netns: raw.Netns, Protocol: protocol(raw.Family, raw.Protocol)}
	address := func(b [16]byte, port uint16) netip.AddrPort {
		switch raw.Family {
		case syscall.AF_INET:
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), port)
		case syscall.AF_INET6:
			return plain(netip.AddrPortFrom(netip.AddrFrom16(b), port))
		}
		return netip.AddrPort{}
	}
	m.Local, m.Remote = address(raw.Local, raw.LocalPort), address(raw.Remote, raw.RemotePort)
	return m
}

func protocol(family, number uint16) string {
	const vsock = 40 // AF_VSOCK
	switch {
	case family == syscall.AF_UNIX:
		return "unix"
	case family == vsock:
		return "vsock"
	case number == syscall.IPPROTO_TCP:
		return "tcp"
	case number == syscall.IPPROTO_UDP:
		return "udp"
	}
	return fmt.Sprintf("family %d, protocol %d", family, number)
}
