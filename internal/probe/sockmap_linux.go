package probe

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/spliced-io/spliced/internal/sys"
)

// sockmap makes a sockmap with room for two sockets. Without code no program
// sees what they receive.
func sockmap(c *closers, code func(m *ebpf.Map) asm.Instructions) (*ebpf.Map, error) {
	m, err := makeMap(ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		return nil, err
	}
	c.add(func() { _ = m.Close() })
	if code == nil {
		return m, nil
	}
	p, err := loadProgram(ebpf.SkSKB, code(m))
	if err != nil {
		return nil, err
	}
	c.add(func() { _ = p.Close() })
	err = link.RawAttachProgram(link.RawAttachProgramOptions{Target: m.FD(), Program: p, Attach: ebpf.AttachSkSKBVerdict})
	return m, bpfError("attach a program", err)
}

func enter(m *ebpf.Map, fds ...int) error {
	for key, fd := range fds {
		if err := m.Put(uint32(key), uint32(fd)); err != nil {
			return bpfError("put a socket into a sockmap", err)
		}
	}
	return nil
}

// passes is a verdict program that leaves everything where it is.
func passes(*ebpf.Map) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}
}

// redirects is one that hands what comes to the second socket of the map, to be
// sent: bpf_sk_redirect_map(skb, m, 1, 0).
func redirects(m *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R2, m.FD()),
		asm.Mov.Imm(asm.R3, 1),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkRedirectMap.Call(),
		asm.Return(),
	}
}

// sockmapRedirect has a program redirect a page from one connection to another.
func sockmapRedirect() Capability {
	const name = "sockmap.redirect"
	var c closers
	defer c.close()
	m, err := sockmap(&c, redirects)
	if err != nil {
		return failed(name, err)
	}
	a, b, err := newPair(&c, syscall.AF_INET)
	if err != nil {
		return failed(name, err)
	}
	d, e, err := newPair(&c, syscall.AF_INET)
	if err != nil {
		return failed(name, err)
	}
	if err := enter(m, b, d); err != nil {
		return failed(name, err)
	}
	if _, err := sys.Send(a, page('r')); err != nil {
		return failed(name, missing(fmt.Errorf("send: %w", err)))
	}
	got := make([]byte, chunk)
	if err := readFull(e, got); err != nil {
		return unknown(name, "what was redirected did not arrive: "+err.Error())
	}
	if !bytes.Equal(got, page('r')) {
		return no(name, "bytes arrived, but not those that were sent")
	}
	return yes(name, fmt.Sprintf("%d bytes went from connection to connection", len(got)))
}

// sockmapSplice splices from a socket in a sockmap with a verdict program. Where
// the kernel has no splice_read for such sockets, splice(2) does not see what
// recv(2) does.
func sockmapSplice() Capability {
	const name = "sockmap.splice-read"
	var c closers
	defer c.close()
	m, err := sockmap(&c, passes)
	if err != nil {
		return failed(name, err)
	}
	a, b, err := newPair(&c, syscall.AF_INET)
	if err != nil {
		return failed(name, err)
	}
	r, w, err := newPipe(&c)
	if err != nil {
		return failed(name, err)
	}
	if err := enter(m, b); err != nil {
		return failed(name, err)
	}
	if _, err := sys.Send(a, page('s')); err != nil {
		return failed(name, missing(fmt.Errorf("send: %w", err)))
	}
	if err := readable(b); err != nil {
		return unknown(name, err.Error())
	}
	n, spliceErr := sys.Splice(b, w, chunk)
	got := make([]byte, chunk)
	if n > 0 {
		if err := readFull(r, got[:n]); err != nil {
			return unknown(name, err.Error())
		}
	}
	// What is left is read before the socket leaves the map: the kernel warns
	// otherwise. It also proves that something was there.
	if err := readFull(b, got[n:]); err != nil {
		return unknown(name, err.Error())
	}
	switch {
	case !bytes.Equal(got, page('s')):
		return no(name, "bytes arrived, but not those that were sent")
	case n > 0:
		return yes(name, fmt.Sprintf("moved %d bytes", n))
	case spliceErr == nil:
		return no(name, fmt.Sprintf("splice(2) saw the end of the stream where recv(2) then got %d bytes", len(got)))
	case errors.Is(spliceErr, syscall.EAGAIN):
		return no(name, fmt.Sprintf("splice(2) saw nothing where recv(2) then got %d bytes", len(got)))
	}
	return failed(name, fmt.Errorf("splice: %w", spliceErr))
}

// sockmapUnread asks a socket in a sockmap how much there is to read (FIONREAD).
// Some kernels say 0: commit 929e30f93125 and those that it was taken back to.
// Who asks before reading then waits for ever.
func sockmapUnread(kind string, code func(*ebpf.Map) asm.Instructions) Capability {
	name := "sockmap.fionread-" + kind
	var c closers
	defer c.close()
	m, err := sockmap(&c, code)
	if err != nil {
		return failed(name, err)
	}
	a, b, err := newPair(&c, syscall.AF_INET)
	if err != nil {
		return failed(name, err)
	}
	if err := enter(m, b); err != nil {
		return failed(name, err)
	}
	if _, err := sys.Send(a, page('u')); err != nil {
		return failed(name, missing(fmt.Errorf("send: %w", err)))
	}
	if err := readable(b); err != nil {
		return unknown(name, err.Error())
	}
	said, saidErr := sys.Unread(b)
	n, err := sys.Recv(b, make([]byte, chunk)) // at least as many as were there
	switch {
	case err != nil:
		return unknown(name, fmt.Sprintf("recv: %v", err))
	case saidErr != nil:
		return failed(name, fmt.Errorf("ioctl FIONREAD: %w", saidErr))
	case said == 0:
		return no(name, fmt.Sprintf("says 0 where recv(2) then got %d bytes", n))
	case said > n:
		return no(name, fmt.Sprintf("says %d where recv(2) then got %d bytes", said, n))
	}
	return yes(name, fmt.Sprintf("says %d, and recv(2) then got %d bytes", said, n))
}
