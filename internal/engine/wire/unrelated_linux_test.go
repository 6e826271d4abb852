package wire_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// Traffic of others by the interfaces that carry spliced pairs: what the program is given
// goes on as it was. A packet socket of all protocols hears frames before the program,
// and one of a single protocol those that the program has left to the stack.

// marker is in every frame that this test makes up, and in none of the pairs'.
const marker = "unrelated: "

// Types of Ethernet frames.
const (
	typeAll  = 0x0003 // ETH_P_ALL
	type8022 = 0x0004 // ETH_P_802_2: a length instead of a type
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeVLAN = 0x8100
	typeIPv6 = 0x86dd
	typeQinQ = 0x88a8
)

// types are those that are listened for beyond the program: of IP, and of what is
// not, some of them with a packet of a spliced pair inside.
var types = []uint16{
	type8022, typeIPv4, typeARP, typeVLAN, typeIPv6,
	0x8847, // MPLS
	0x8864, // PPPoE
	0x888e, // 802.1X
	0x88b5, // experiments
	0x88cc, // LLDP
	0x88f7, // PTP
}

// A tap hears the frames that an interface takes in, those of spliced pairs aside.
type tap struct {
	name  string
	pairs map[string]bool // by tuple, see tuple
	fds   []int
	stop  chan struct{}
	gone  sync.WaitGroup

	mu     sync.Mutex
	frames map[string]int
	tagged map[string]bool // those that came with a VLAN tag, which is not a part of frames
	ours   int             // frames of the pairs
}

func listenTo(t *testing.T, ns *testnet.Namespace, link string, pairs map[string]bool, protocols ...uint16) *tap {
	t.Helper()
	const packetLevel, auxiliary, ignoreOutgoing, rcvbufForce = 263, 8, 23, 33
	p := &tap{
		name:  fmt.Sprintf("%s of %s, %#x", link, ns.Name(), protocols),
		pairs: pairs, stop: make(chan struct{}), frames: make(map[string]int), tagged: make(map[string]bool),
	}
	err := ns.Do(func() error {
		i, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		for _, protocol := range protocols {
			fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			p.fds = append(p.fds, fd)
			err = errors.Join(
				syscall.SetsockoptInt(fd, packetLevel, ignoreOutgoing, 1),
				syscall.SetsockoptInt(fd, packetLevel, auxiliary, 1),
				syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, rcvbufForce, 256<<20),
				// So that the reader can look whether it is to end.
				syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 20000}),
				syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: onWire(protocol), Ifindex: i.Index}),
			)
			if err != nil {
				return err
			}
		}
		return nil
	})
	t.Cleanup(func() {
		close(p.stop)
		p.gone.Wait()
		for _, fd := range p.fds {
			_ = syscall.Close(fd)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range p.fds {
		p.gone.Go(func() { p.read(fd) })
	}
	return p
}

// onWire is a type in network byte order.
func onWire(protocol uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, protocol))
}

func (p *tap) read(fd int) {
	const tag = 1 << 4 // TP_STATUS_VLAN_VALID, in the first field of struct tpacket_auxdata
	buf, aux := make([]byte, 1<<17), make([]byte, 64)
	for {
		n, m, _, _, err := syscall.Recvmsg(fd, buf, aux, 0)
		if err != nil {
			select {
			case <-p.stop:
				return
			default:
				continue
			}
		}
		p.mu.Lock()
		switch frame := buf[:n]; {
		case bytes.Contains(frame, []byte(marker)) || !p.pairs[tuple(frame)] && !neighbourly(frame):
			p.frames[string(frame)]++
			if m >= syscall.SizeofCmsghdr+4 && binary.NativeEndian.Uint32(aux[syscall.SizeofCmsghdr:])&tag != 0 {
				p.tagged[string(frame)] = true
			}
		case p.pairs[tuple(frame)]:
			p.ours++
		}
		p.mu.Unlock()
	}
}

// heard returns what was heard so far, and how many frames were of spliced pairs.
func (p *tap) heard() (frames map[string]int, ours int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	frames = make(map[string]int, len(p.frames))
	for f, n := range p.frames {
		frames[f] = n
	}
	return frames, p.ours
}

// missed is how many frames the sockets had no room for.
func (p *tap) missed(t *testing.T) (n int) {
	t.Helper()
	const packetLevel, statistics = 263, 6 // SOL_PACKET, PACKET_STATISTICS
	for _, fd := range p.fds {
		// struct tpacket_stats is two numbers, as struct ip_mreq: drops come second.
		v, err := syscall.GetsockoptIPMreq(fd, packetLevel, statistics)
		if err != nil {
			t.Fatal(err)
		}
		n += int(binary.NativeEndian.Uint32(v.Interface[:]))
	}
	return n
}

// neighbourly says that a frame is one of those that kernels send by themselves, at any time, also
// when one tap listens already and the other does not yet: of ARP, and of ICMPv6's neighbours and groups.
func neighbourly(b []byte) bool {
	const hopByHop = 0
	if len(b) < 14+40 {
		return len(b) >= 14 && binary.BigEndian.Uint16(b[12:]) == typeARP
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case typeARP:
		return true
	case typeIPv6:
		return b[14+6] == hopByHop || b[14+6] == syscall.IPPROTO_ICMPV6
	}
	return false
}

// tuple names the TCP connection of a frame, "" for others.
func tuple(b []byte) string {
	if len(b) < 14+20 {
		return ""
	}
	ip := b[14:]
	switch binary.BigEndian.Uint16(b[12:]) {
	case typeIPv4:
		if l4 := int(ip[0]&15) * 4; ip[9] == syscall.IPPROTO_TCP && len(ip) >= l4+4 {
			return string(ip[12:20]) + string(ip[l4:l4+4])
		}
	case typeIPv6:
		if len(ip) >= 44 && ip[6] == syscall.IPPROTO_TCP {
			return string(ip[8:44])
		}
	}
	return ""
}

// tuples are those of what comes in from the ends of a bench.
func (b *bench) tuples() (names []string) {
	for _, c := range []*net.TCPConn{b.client, b.server} {
		from, to := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())
		names = append(names, tuple(ethernet(nil, nil, typeOf(from.Addr()), datagram{from: from, to: to, protocol: syscall.IPPROTO_TCP}.bytes())))
	}
	return names
}

func typeOf(a netip.Addr) uint16 {
	if a.Is4() {
		return typeIPv4
	}
	return typeIPv6
}

// ethernet makes a frame.
func ethernet(to, from net.HardwareAddr, protocol uint16, payload []byte) []byte {
	b := make([]byte, 12, 14+len(payload))
	copy(b, to)
	copy(b[6:], from)
	return append(binary.BigEndian.AppendUint16(b, protocol), payload...)
}

// A datagram is an IP packet; its payload begins with two ports, as those of UDP and TCP do.
type datagram struct {
	from, to   netip.AddrPort
	protocol   byte
	ttl        byte   // 0: 64
	fragment   uint16 // IPv4: flags and offset
	options    []byte // IPv4
	extensions []byte // IPv6; the first byte is the type of the first
	payload    []byte // behind the ports
}

func (d datagram) bytes() []byte {
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, d.from.Port()), d.to.Port())
	if d.ttl == 0 {
		d.ttl = 64
	}
	src, dst := d.from.Addr().AsSlice(), d.to.Addr().AsSlice()
	if d.from.Addr().Is6() {
		ip := make([]byte, 40)
		ip[0], ip[6], ip[7] = 6<<4, d.protocol, d.ttl
		extensions := d.extensions
		if len(extensions) > 0 {
			ip[6], extensions = extensions[0], extensions[1:]
		}
		binary.BigEndian.PutUint16(ip[4:], uint16(len(extensions)+len(ports)+len(d.payload)))
		copy(ip[8:], src)
		copy(ip[24:], dst)
		return slices.Concat(ip, extensions, ports, d.payload)
	}
	ip := append(make([]byte, 20), d.options...)
	ip[0], ip[8], ip[9] = 4<<4|byte(len(ip)/4), d.ttl, d.protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(ports)+len(d.payload)))
	binary.BigEndian.PutUint16(ip[6:], d.fragment)
	copy(ip[12:], src)
	copy(ip[16:], dst)
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip))
	return slices.Concat(ip, ports, d.payload)
}

// sum adds up 16-bit words.
func sum(parts ...[]byte) uint16 {
	var n uint32
	for i, b := range slices.Concat(parts...) {
		n += uint32(b) << (8 * (1 - i%2))
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return uint16(n)
}

// udp makes the part of a UDP datagram behind the ports; without a checksum if from is
// not valid.
func udp(from, to netip.AddrPort, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(8+len(data)))
	b = append(append(b, 0, 0), data...)
	if from.IsValid() {
		ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from.Port()), to.Port())
		pseudo := slices.Concat(from.Addr().AsSlice(), to.Addr().AsSlice(), []byte{0, 17}, b[:2])
		data := slices.Concat(pseudo, ports, b)
		binary.BigEndian.PutUint16(b[2:], ^sum(data))
	}
	return b
}

// tcp makes the part of a segment behind the ports, with a checksum that is not right.
func tcp(flags byte, data string) []byte {
	b := make([]byte, 16, 16+len(data))
	b[8], b[9], b[10] = 5<<4, flags, 1
	return append(b, data...)
}

// A sample is a frame that somebody sends to B, who forwards it to C or not.
type sample struct {
	name    string
	forward bool
	frame   []byte
}

// samples are frames for B from A. ours are packets of pairs, from A, as B takes them in:
// what is not quite like them is none of the program's.
func samples(toB, fromA net.HardwareAddr, ours [2]datagram) (all []sample) {
	add := func(name string, forward bool, protocol uint16, payload ...[]byte) {
		all = append(all, sample{name, forward, ethernet(toB, fromA, protocol, slices.Concat(payload...))})
	}
	say := func(name string) []byte { return []byte(marker + name) }
	addr := func(s string, port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(s), port) }
	for i, protocol := range []uint16{typeIPv4, typeIPv6} {
		v := [2]string{" v4", " v6"}[i]
		a, b, c := [2]string{testnet.AddrA, testnet.Addr6A}[i], [2]string{testnet.AddrBA, testnet.Addr6BA}[i], [2]string{testnet.AddrC, testnet.Addr6C}[i]
		pair := ours[i]
		ip := func(name string, to string, change func(*datagram)) {
			d := datagram{from: addr(a, 1000), to: addr(to, 2000), protocol: syscall.IPPROTO_UDP}
			d.payload = udp(d.from, d.to, say(name+v))
			change(&d)
			add(name+v, to == c && d.ttl != 1, protocol, d.bytes())
		}
		same := func(*datagram) {}
		ip("UDP", c, same)
		ip("UDP of even length", c, func(d *datagram) { d.payload = udp(d.from, d.to, append(say("UDP of even length"+v), 0)) })
		ip("UDP without a checksum", c, func(d *datagram) { d.payload = udp(netip.AddrPort{}, d.to, say("UDP without a checksum"+v)) })
		ip("UDP with a wrong checksum", c, func(d *datagram) { d.payload[2] ^= 1 })
		ip("the last hop", c, func(d *datagram) { d.ttl = 1 })
		ip("jumbo", c, func(d *datagram) { d.payload = udp(d.from, d.to, append(say("jumbo"+v), make([]byte, 8000)...)) })
		ip("UDP to B", b, same)
		ip("UDP with the addresses of a pair", b, func(d *datagram) {
			d.from, d.to = pair.from, pair.to
			d.payload = udp(d.from, d.to, say("UDP with the addresses of a pair"+v))
		})
		for _, p := range []byte{4, 33, 47, 50, 132, 255} { // IPIP, DCCP, GRE, ESP, SCTP, raw
			name := fmt.Sprintf("protocol %d", p)
			ip(name, c, func(d *datagram) { d.protocol, d.payload = p, say(name+v) })
		}
		ip("TCP of another connection", c, func(d *datagram) { d.protocol, d.payload = syscall.IPPROTO_TCP, tcp(0x18, marker+"TCP"+v) })
		ip("SYN", c, func(d *datagram) { d.protocol, d.payload = syscall.IPPROTO_TCP, tcp(2, marker+"SYN"+v) })
		ip("another port", b, func(d *datagram) {
			*d = pair
			d.from, d.payload = netip.AddrPortFrom(d.from.Addr(), d.from.Port()^1), tcp(0x10, marker+"another port"+v)
		})
		ip("the other way round", b, func(d *datagram) {
			*d = pair
			d.from, d.to, d.payload = pair.to, pair.from, tcp(0x10, marker+"the other way round"+v)
		})
		if i == 0 {
			ip("a first fragment", c, func(d *datagram) {
				d.fragment, d.payload = 0x2000, append(d.payload, "to eight"[:(8-(4+len(d.payload))%8)%8]...)
			})
			ip("a later fragment", c, func(d *datagram) { d.fragment = 0x2003 })
			ip("a last fragment", c, func(d *datagram) { d.fragment = 0x0010 })
			ip("a later fragment of a pair", b, func(d *datagram) { *d = pair; d.fragment, d.payload = 0x0100, say("later of a pair") })
			ip("IP options", c, func(d *datagram) { d.options = []byte{7, 7, 4, 0, 0, 0, 0, 0} }) // record route
			ip("a header with a wrong checksum", b, same)
			all[len(all)-1].frame[14+10] ^= 1
			ip("a header that is too short", b, same)
			all[len(all)-1].frame[14] = 4<<4 | 3
			ip("a version that is not the type's", b, same)
			all[len(all)-1].frame[14] = 6<<4 | 5
			ip("more than there is", b, same)
			all[len(all)-1].frame[14+2] = 0x40
			add("a group", false, protocol, datagram{
				from: addr(a, 5353), to: addr("224.0.0.251", 5353), ttl: 1, protocol: syscall.IPPROTO_UDP, payload: udp(netip.AddrPort{}, pair.to, say("a group")),
			}.bytes())
			all[len(all)-1].frame = append(append([]byte{1, 0, 0x5e, 0, 0, 251}, fromA...), all[len(all)-1].frame[12:]...)
		} else {
			extended := func(name string, to string, tcpOfPair bool, extensions ...byte) {
				ip(name, to, func(d *datagram) {
					if tcpOfPair {
						*d = pair
						d.payload = tcp(0x10, marker+name)
						extensions[1] = syscall.IPPROTO_TCP
					}
					d.extensions = extensions
				})
			}
			extended("hop-by-hop options", c, false, 0, 17, 0, 1, 4, 0, 0, 0, 0)
			extended("destination options", c, false, 60, 17, 0, 1, 4, 0, 0, 0, 0)
			extended("a fragment", c, false, 44, 17, 0, 0, 1, 0, 0, 0, 9)
			extended("a later fragment", c, false, 44, 17, 0, 0, 0x41, 0, 0, 0, 9)
			extended("no next header", c, false, 59)
			extended("a pair's with hop-by-hop options", b, true, 0, 6, 0, 1, 4, 0, 0, 0, 0)
			extended("a pair's with destination options", b, true, 60, 6, 0, 1, 4, 0, 0, 0, 0)
			extended("a later fragment of a pair", b, true, 44, 6, 0, 0, 0x41, 0, 0, 0, 9)
		}
		ofPair := pair
		packet := func(name string) []byte { ofPair.payload = tcp(0x10, marker+name+v); return ofPair.bytes() }
		add("VLAN 7"+v, false, typeVLAN, []byte{0, 7, byte(protocol >> 8), byte(protocol)}, packet("VLAN 7"))
		add("a provider's VLAN"+v, false, typeQinQ, []byte{0x20, 7, byte(protocol >> 8), byte(protocol)}, packet("a provider's VLAN"))
		add("VLAN in VLAN"+v, false, typeQinQ, []byte{0, 8, 0x81, 0, 0, 7, byte(protocol >> 8), byte(protocol)}, packet("VLAN in VLAN"))
		tagged := datagram{from: addr(a, 1000), to: addr(c, 2000), protocol: syscall.IPPROTO_UDP}
		tagged.payload = udp(tagged.from, tagged.to, say("a priority"+v))
		add("a priority"+v, true, typeVLAN, []byte{0xa0, 0, byte(protocol >> 8), byte(protocol)}, tagged.bytes())
		add("MPLS"+v, false, 0x8847, []byte{0, 1, 1, 64}, packet("MPLS"))
		add("PPPoE"+v, false, 0x8864, []byte{0x11, 0, 0, 1, 0, 100, 0, byte(0x21 + 0x36*i)}, packet("PPPoE"))
		add("another machine's"+v, false, protocol, packet("another machine's"))
		all[len(all)-1].frame[5] ^= 1
		add("to all machines"+v, false, protocol, packet("to all machines"))
		copy(all[len(all)-1].frame, []byte{255, 255, 255, 255, 255, 255})
	}
	probe := slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 1}, fromA, []byte{0, 0, 0, 0}, make([]byte, 6), []byte{10, 83, 1, 77})
	add("ARP", false, typeARP, probe, say("ARP"))
	add("ARP of no kind", false, typeARP, []byte{0, 1, 8}, say("ARP of no kind"))
	for _, p := range []uint16{0x888e, 0x88b5, 0x88cc, 0x88f7} {
		name := fmt.Sprintf("type %#x", p)
		add(name, false, p, say(name))
		all[len(all)-1].frame = append([]byte{1, 0x80, 0xc2, 0, 0, 0x0e}, all[len(all)-1].frame[6:]...)
	}
	name := "a length instead of a type"
	add(name, false, uint16(3+len(marker)+len(name)), []byte{0x42, 0x42, 3}, say(name))
	return all
}

// send sends frames from an interface.
func send(t *testing.T, ns *testnet.Namespace, link string, frames []sample) {
	t.Helper()
	err := ns.Do(func() error {
		i, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = syscall.Close(fd) }()
		for _, s := range frames {
			to := syscall.SockaddrLinklayer{Protocol: onWire(binary.BigEndian.Uint16(s.frame[12:])), Ifindex: i.Index}
			if err := syscall.Sendto(fd, s.frame, 0, &to); err != nil {
				return fmt.Errorf("send %s: %w", s.name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// alike waits until two taps have heard the same, and says what they have not if they
// don't in time.
func alike(t *testing.T, before, beyond *tap) {
	t.Helper()
	var was, is map[string]int
	same := func() bool {
		was, _ = before.heard()
		is, _ = beyond.heard()
		if len(was) != len(is) {
			return false
		}
		for f, n := range was {
			if is[f] != n {
				return false
			}
		}
		return true
	}
	end := time.Now().Add(patience)
	for !same() {
		if time.Now().After(end) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, p := range []*tap{before, beyond} {
		if n := p.missed(t); n > 0 {
			t.Fatalf("%s: %d frames were not heard", p.name, n)
		}
	}
	for _, d := range differences(was, is) {
		t.Errorf("%s against %s: %s", before.name, beyond.name, d)
	}
}

// differences names the frames that were heard more often on one side.
func differences(was, is map[string]int) (all []string) {
	for f, n := range was {
		if is[f] < n {
			all = append(all, fmt.Sprintf("%d of %d are missing: %.200x %q", n-is[f], n, f, after(f)))
		}
	}
	for f, n := range is {
		if was[f] < n {
			all = append(all, fmt.Sprintf("%d of %d are new: %.200x %q", n-was[f], n, f, after(f)))
		}
	}
	return all
}

// after is what a frame says behind the marker.
func after(frame string) string {
	if _, what, ok := bytes.Cut([]byte(frame), []byte(marker)); ok {
		return string(what[:min(len(what), 40)])
	}
	return ""
}

// marked are those of the frames that this test has made up.
func marked(frames map[string]int) map[string]int {
	m := make(map[string]int)
	for f, n := range frames {
		if after(f) != "" {
			m[f] = n
		}
	}
	return m
}

// hardware is the address of an interface.
func hardware(t *testing.T, ns *testnet.Namespace, link string) (a net.HardwareAddr) {
	t.Helper()
	err := ns.Do(func() error {
		i, err := net.InterfaceByName(link)
		if err == nil {
			a = i.HardwareAddr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// What is not of a spliced pair passes the program as it is, whatever it is, while pairs
// on the same interfaces are busy: to B itself, and by way of B to C.
func TestUnrelated(t *testing.T) {
	c := newChain(t)
	for ns, links := range map[*testnet.Namespace][]string{
		c.A: {testnet.LinkAB}, c.B: {testnet.LinkBA, testnet.LinkBC}, c.C: {testnet.LinkCB},
	} {
		for _, link := range links {
			if err := ns.SetMTU(link, 9000); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The last ones use lo.
	var benches []*bench
	for _, i := range []int{0, 1, 3, 5} {
		benches = append(benches, places()[i].open(t, c))
	}
	pairs := make(map[string]bool)
	var ours [2]datagram
	for i, b := range benches {
		for _, name := range b.tuples() {
			pairs[name] = true
		}
		if i < len(ours) {
			from, to := netip.MustParseAddrPort(b.client.LocalAddr().String()), netip.MustParseAddrPort(b.client.RemoteAddr().String())
			ours[i] = datagram{from: from, to: to, protocol: syscall.IPPROTO_TCP}
		}
	}
	frames := samples(hardware(t, c.B, testnet.LinkBA), hardware(t, c.A, testnet.LinkAB), ours)
	forwarded := 0
	for _, s := range frames {
		if s.forward {
			forwarded++
		}
	}

	type point struct{ before, beyond *tap }
	var points []point
	for _, link := range []string{testnet.LinkBA, testnet.LinkBC, "lo"} {
		points = append(points, point{listenTo(t, c.B, link, pairs, typeAll), listenTo(t, c.B, link, pairs, types...)})
	}

	// What C gets without the program, and with it. A busy machine may lose some: then all
	// is sent again.
	heardByC := func() (got map[string]int) {
		t.Helper()
		atC := listenTo(t, c.C, testnet.LinkCB, pairs, typeAll)
		for end := time.Now().Add(patience); len(got) < forwarded && time.Now().Before(end); {
			send(t, c.A, testnet.LinkAB, frames)
			for soon := time.Now().Add(time.Second); len(got) < forwarded && time.Now().Before(soon); time.Sleep(time.Millisecond) {
				all, _ := atC.heard()
				got = marked(all)
			}
		}
		// How often does not matter.
		for f := range got {
			got[f] = 1
		}
		return got
	}
	without := heardByC()
	if len(without) != forwarded {
		t.Fatalf("%d kinds of frames were forwarded without the program, want %d: %v", len(without), forwarded, differences(nil, without))
	}

	p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
	var spliced []*wire.Pair
	for _, b := range benches {
		pair := consider(t, c, p, b, func() {})
		handOver(t, pair)
		b.a.Close()
		b.b.Close()
		spliced = append(spliced, pair)
	}
	if n := len(p.Attached()); n != len(points) {
		t.Fatalf("the program is on %d interfaces, want %d", n, len(points))
	}
	var busy sync.WaitGroup
	var over atomic.Bool
	for _, b := range benches {
		busy.Go(func() {
			for !over.Load() {
				echo(t, b)
				time.Sleep(time.Millisecond) // else the taps can't keep up
			}
		})
	}
	for _, d := range differences(without, heardByC()) {
		t.Errorf("what C got without the program, and with it: %s", d)
	}
	converse(t, c)
	over.Store(true)
	busy.Wait()
	for _, at := range points {
		alike(t, at.before, at.beyond)
		was, ours := at.before.heard()
		t.Logf("%s: %d frames of pairs, %d different ones of others", at.before.name, ours, len(was))
		if ours == 0 {
			t.Errorf("%s: no pair was heard", at.before.name)
		}
		// Those of before the hand-over. After it none of lo comes in as it has left.
		if _, n := at.beyond.heard(); n > ours/10+10 {
			t.Errorf("%s: %d frames of pairs were left to the stack", at.beyond.name, n)
		}
	}
	arrived := make(map[string]bool)
	was, _ := points[0].before.heard()
	for f := range was {
		arrived[after(f)] = true
	}
	for _, s := range frames {
		if what := after(string(s.frame)); what == "" || !arrived[what] {
			t.Errorf("%s did not arrive", s.name)
		}
	}
	for i, pair := range spliced {
		v, err := pair.Look()
		if err != nil || v.Flows[0].Packets == 0 || v.Flows[1].Packets == 0 || v.Flows[0].Errors+v.Flows[1].Errors > 0 {
			t.Errorf("pair %d: %+v, %v", i, v, err)
		}
		pair.Abort()
	}
}

// A priority is for the link that a packet comes by: a packet of a pair goes across without the
// tag that says it.
func TestPriority(t *testing.T) {
	for i, pl := range places()[:2] {
		t.Run(pl.name, func(t *testing.T) {
			c, b, pair := pl.splice(t)
			atC := listenTo(t, c.C, testnet.LinkCB, nil, typeAll)
			d := datagram{protocol: syscall.IPPROTO_TCP, payload: tcp(0x10, marker+"a priority")}
			d.from, d.to = netip.MustParseAddrPort(b.client.LocalAddr().String()), netip.MustParseAddrPort(b.client.RemoteAddr().String())
			protocol := []uint16{typeIPv4, typeIPv6}[i]
			tag := []byte{0xa0, 0, byte(protocol >> 8), byte(protocol)}
			frame := ethernet(hardware(t, c.B, testnet.LinkBA), hardware(t, c.A, testnet.LinkAB), typeVLAN, append(tag, d.bytes()...))
			send(t, c.A, testnet.LinkAB, []sample{{"a priority", true, frame}})
			eventually(t, "it has arrived", func() bool {
				all, _ := atC.heard()
				return len(marked(all)) > 0
			})
			atC.mu.Lock()
			for f := range atC.tagged {
				t.Errorf("%x has a tag", f)
			}
			atC.mu.Unlock()
			pair.Abort()
		})
	}
}

// echo has a message go to the server of a bench, and another one back.
func echo(t *testing.T, b *bench) {
	message := make([]byte, 20000)
	for _, way := range [][2]*net.TCPConn{{b.client, b.server}, {b.server, b.client}} {
		_ = way[0].SetDeadline(time.Now().Add(patience))
		_ = way[1].SetDeadline(time.Now().Add(patience))
		if _, err := way[0].Write(message); err != nil {
			t.Error(err)
			return
		}
		for n := 0; n < len(message); {
			m, err := way[1].Read(message)
			if err != nil {
				t.Error(err)
				return
			}
			n += m
		}
	}
}

// converse has the kernels talk: TCP streams and bundles of UDP datagrams from A to C, C to
// A, A to B and B to itself.
func converse(t *testing.T, c *testnet.Chain) {
	t.Helper()
	for _, w := range []struct {
		from, to *testnet.Namespace
		addr     string
	}{
		{c.A, c.C, testnet.AddrC},
		{c.A, c.C, testnet.Addr6C},
		{c.C, c.A, testnet.AddrA},
		{c.C, c.A, testnet.Addr6A},
		{c.A, c.B, testnet.AddrBA},
		{c.A, c.B, testnet.Addr6BA},
		{c.B, c.B, "127.0.0.1"},
		{c.B, c.B, "::1"},
	} {
		from, to := connect(t, w.from, w.to, w.addr)
		carry(t, from, to, 1<<20)
		carry(t, to, from, 1<<20)
		from.Close()
		to.Close()
		bundle(t, w.from, w.to, w.addr)
	}
}

// bundle sends UDP datagrams that the kernel takes for one packet until they leave.
func bundle(t *testing.T, from, to *testnet.Namespace, addr string) {
	t.Helper()
	const udpLevel, segment, size, count = 17, 103, 1000, 20 // UDP_SEGMENT
	var in net.PacketConn
	err := to.Do(func() (err error) {
		in, err = net.ListenPacket("udp", net.JoinHostPort(addr, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := from.Dial(context.Background(), "udp", in.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	raw, err := out.(*net.UDPConn).SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), udpLevel, segment, size) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2*size)
	got := 0
	for end := time.Now().Add(patience); got < count; { // a busy machine may lose some
		if time.Now().After(end) {
			t.Fatalf("only %d datagrams have arrived", got)
		}
		if _, err := out.Write(make([]byte, size*count)); err != nil {
			t.Fatal(err)
		}
		_ = in.SetReadDeadline(time.Now().Add(time.Second))
		for got < count {
			n, _, err := in.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil || n != size {
				t.Fatalf("%d bytes, %v", n, err)
			}
			got++
		}
	}
}
