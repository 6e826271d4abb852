package testnet

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// Forge sends a segment from the namespace, whosever it says it is.
func (ns *Namespace) Forge(s *Segment) error {
	return ns.Do(func() error {
		family := syscall.AF_INET
		if s.To.Addr().Is6() {
			family = syscall.AF_INET6
		}
		fd, err := sys.RawSocket(family)
		if err != nil {
			return fmt.Errorf("forge a segment: %w", err)
		}
		defer func() { _ = sys.Close(fd) }()
		if err := sys.SendPacket(fd, s.Packet(), s.To.Addr()); err != nil {
			return fmt.Errorf("forge a segment: %w", err)
		}
		return nil
	})
}

// A Wiretap hears the TCP segments that arrive for the addresses of a namespace.
type Wiretap struct {
	fd int
	v6 bool
}

// Tap begins to hear those of the family of addr.
func (ns *Namespace) Tap(addr netip.Addr) (*Wiretap, error) {
	w := &Wiretap{fd: -1, v6: addr.Is6()}
	err := ns.Do(func() (err error) {
		family := syscall.AF_INET
		if w.v6 {
			family = syscall.AF_INET6
		}
		if w.fd, err = syscall.Socket(family, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_TCP); err != nil {
			return err
		}
		return syscall.SetsockoptTimeval(w.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 50000})
	})
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("hear the segments of %s: %w", ns.name, err)
	}
	return w, nil
}

// Await returns the next segment from one address to another that f is true for. False: none
// has come in time. An IPv6 address of the receiver is not looked at, but for its port.
func (w *Wiretap) Await(from, to netip.AddrPort, patience time.Duration, f func(*Segment) bool) (Segment, bool) {
	buf := make([]byte, 1<<16)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		n, peer, err := syscall.Recvfrom(w.fd, buf, 0)
		if err != nil {
			continue
		}
		var s Segment
		var ok bool
		switch peer := peer.(type) {
		case *syscall.SockaddrInet4: // with the IP header
			if h := int(buf[0]&15) * 4; n > 20 && n >= h {
				s, ok = parseSegment(netip.AddrFrom4(peer.Addr), netip.AddrFrom4([4]byte(buf[16:20])), buf[h:n])
			}
		case *syscall.SockaddrInet6: // without
			s, ok = parseSegment(netip.AddrFrom16(peer.Addr), to.Addr(), buf[:n])
		}
		if ok && s.From == from && s.To == to && f(&s) {
			return s, true
		}
	}
	return Segment{}, false
}

// Close ends it.
func (w *Wiretap) Close() {
	if w.fd >= 0 {
		_ = syscall.Close(w.fd)
		w.fd = -1
	}
}

// Counter is a number of the namespace's /proc/net/netstat or snmp, as nstat calls it:
// "TcpExtTCPChallengeACK".
func (ns *Namespace) Counter(name string) (uint64, error) {
	for _, file := range []string{"netstat", "snmp"} {
		content, err := ns.ReadProcNet(file)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", name, err)
		}
		if n, ok := counter(string(content), name); ok {
			return n, nil
		}
	}
	return 0, fmt.Errorf("read %s: the kernel does not count that", name)
}

// counter finds a number in a file of pairs of lines: names, and values.
func counter(content, name string) (uint64, bool) {
	lines := strings.Split(content, "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		group, names, ok := strings.Cut(lines[i], ":")
		_, values, _ := strings.Cut(lines[i+1], ":")
		if !ok || !strings.HasPrefix(name, group) {
			continue
		}
		is := strings.Fields(values)
		for j, n := range strings.Fields(names) {
			if group+n == name && j < len(is) {
				v, err := strconv.ParseUint(is[j], 10, 64)
				return v, err == nil
			}
		}
	}
	return 0, false
}
