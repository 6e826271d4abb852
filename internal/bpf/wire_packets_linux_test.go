package bpf_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/bpf"
)

// A crafted packet: an Ethernet frame with TCP in it, or something else.
type crafted struct {
	from, to   netip.AddrPort
	tos        byte
	flowLabel  uint32
	fragment   uint16 // IPv4: flags and offset
	ipOptions  []byte // IPv4
	extensions []byte // IPv6; the first byte is the type of the first
	protocol   byte   // 0: TCP
	hops       byte   // TTL or hop limit; 0: those that come in
	seq, ack   uint32
	reserved   byte // beside the header's length
	flags      byte
	window     uint16
	urgent     uint16
	options    []byte // a multiple of four
	data       []byte
}

// hopsIn are the hops that a packet has left when it comes in.
const hopsIn = 61

const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
	urg
	ece
	cwr
)

func sum16(sum uint32, parts ...[]byte) uint32 {
	for _, b := range parts {
		for i := 0; i < len(b); i++ {
			sum += uint32(b[i]) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}

// frame makes the packet, with right checksums.
func (c crafted) frame() []byte {
	if c.protocol == 0 {
		c.protocol = 6
	}
	tcp := make([]byte, 20, 20+len(c.options)+len(c.data))
	binary.BigEndian.PutUint16(tcp, c.from.Port())
	binary.BigEndian.PutUint16(tcp[2:], c.to.Port())
	binary.BigEndian.PutUint32(tcp[4:], c.seq)
	binary.BigEndian.PutUint32(tcp[8:], c.ack)
	tcp[12], tcp[13] = byte(20+len(c.options))<<2|c.reserved, c.flags
	binary.BigEndian.PutUint16(tcp[14:], c.window)
	binary.BigEndian.PutUint16(tcp[18:], c.urgent)
	tcp = append(append(tcp, c.options...), c.data...)
	src, dst := c.from.Addr().AsSlice(), c.to.Addr().AsSlice()
	sum := sum16(uint32(c.protocol)+uint32(len(tcp)), src, dst, tcp)
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return append(c.network(len(tcp)), tcp...)
}

// network makes the headers before so many bytes of payload.
func (c crafted) network(size int) []byte {
	if c.hops == 0 {
		c.hops = hopsIn
	}
	b := make([]byte, 14, 14+40+len(c.extensions)+size)
	b[6] = 2 // some address; that of the receiver, lo, is 0
	src, dst := c.from.Addr().AsSlice(), c.to.Addr().AsSlice()
	if c.from.Addr().Is6() {
		binary.BigEndian.PutUint16(b[12:], 0x86dd)
		ip := make([]byte, 40)
		binary.BigEndian.PutUint32(ip, 6<<28|uint32(c.tos)<<20|c.flowLabel)
		ip[6], ip[7] = c.protocol, c.hops
		extensions := c.extensions
		if len(extensions) > 0 {
			ip[6], extensions = extensions[0], extensions[1:]
		}
		binary.BigEndian.PutUint16(ip[4:], uint16(len(extensions)+size))
		copy(ip[8:], src)
		copy(ip[24:], dst)
		return append(append(b, ip...), extensions...)
	}
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip := append(make([]byte, 20), c.ipOptions...)
	ip[0], ip[1], ip[8], ip[9] = 0x40|byte(len(ip)/4), c.tos, c.hops, c.protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+size))
	binary.BigEndian.PutUint16(ip[6:], c.fragment)
	copy(ip[12:], src)
	copy(ip[16:], dst)
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum16(0, ip)))
	return append(b, ip...)
}

// A way of an address family: what comes in by it, and what becomes of that.
type way struct {
	name         string
	a, ba, bc, c netip.AddrPort
	icmp         byte // protocol
	unreachable  [2]byte
	tooBig       [2]byte
}

var ways = []way{
	{
		"v4", netip.MustParseAddrPort("10.1.0.1:1025"), netip.MustParseAddrPort("10.2.0.1:80"),
		netip.MustParseAddrPort("10.3.0.1:1026"), netip.MustParseAddrPort("10.4.0.1:81"), 1,
		[2]byte{3, 1},
		[2]byte{3, 4},
	},
	{
		"v6", netip.MustParseAddrPort("[fd01::1]:1025"), netip.MustParseAddrPort("[fd02::1]:80"),
		netip.MustParseAddrPort("[fd03::1]:1026"), netip.MustParseAddrPort("[fd04::1]:81"), 58,
		[2]byte{1, 3},
		[2]byte{2, 0},
	},
}

// What the entries of the tests add, and where the streams are: 1,000 bytes of each
// side have crossed and are acknowledged, and each has room for 1 MiB.
const (
	addSeq, addAck, addTS, addEcho = 1000, 2000, 3000, 4000
	shiftIn, shiftOut              = 7, 5
	sentByA, sentByC               = 5000, 9000 // the next numbers of A, and of C
	room                           = 1 << 20
	overEdge                       = 1 << 20 // LARGEST of wire_watch.h
)

// edit changes an entry.
func edit(t *testing.T, o *bpf.WireObjects, key *bpf.WireKey, change func(*bpf.WireFlow)) {
	t.Helper()
	f, err := o.Flow(key)
	if err != nil {
		t.Fatal(err)
	}
	change(&f)
	if err := o.Flows.Put(key, &f); err != nil {
		t.Fatal(err)
	}
}

// spliced enters a pair.
func (w *way) spliced(t *testing.T, o *bpf.WireObjects) (keys [2]bpf.WireKey) {
	t.Helper()
	keys = [2]bpf.WireKey{bpf.WireKeyOf(w.a, w.ba), bpf.WireKeyOf(w.c, w.bc)}
	flows := [2]bpf.WireFlow{
		{End: sentByA, Acked: sentByC - addAck, Edge: sentByC - addAck + room},
		{End: sentByC, Acked: sentByA + addSeq, Edge: sentByA + addSeq + room},
	}
	flows[0].Rewrite = bpf.WireRewrite{
		SeqAdd: addSeq, AckAdd: addAck, TsvalAdd: addTS, TsecrAdd: addEcho, WindowIn: shiftIn, WindowOut: shiftOut,
	}
	flows[1].Rewrite = bpf.WireRewrite{
		SeqAdd: -addAck & 0xffffffff, AckAdd: -addSeq & 0xffffffff, WindowIn: shiftOut, WindowOut: shiftIn,
	}
	for i := range flows {
		flows[i].State, flows[i].Seen = bpf.WireSpliced, 1
		flows[i].Rewrite.To, flows[i].Rewrite.Ifindex = keys[1-i].Reverse(), 1
		o.Delete(&keys[i])
		if err := o.Insert(&keys[i], &flows[i]); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

// runWire has the program see a frame that comes in.
func runWire(t *testing.T, o *bpf.WireObjects, frame []byte) (ret int32, out []byte) {
	t.Helper()
	return runOf(t, o.WireIngress, frame)
}

func runOf(t *testing.T, program *ebpf.Program, frame []byte) (ret int32, out []byte) {
	t.Helper()
	out = make([]byte, len(frame))
	answer, err := program.Run(&ebpf.RunOptions{Data: frame, DataOut: out})
	if err != nil {
		t.Fatal(err)
	}
	return int32(answer), out
}

const (
	wireNext     = -1
	wireDrop     = 2
	wireRedirect = 7
)

func be32(v ...uint32) (b []byte) {
	for _, v := range v {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// jumbo is a hop-by-hop header before TCP that says how long a packet is, RFC 2675.
var jumbo = []byte{0, 6, 0, 0xc2, 4, 0, 1, 2, 3}

// noLength takes it from the header of IPv6.
func noLength(b []byte) []byte {
	b[14+4], b[14+5] = 0, 0
	return b
}

// Each kind of packet of a spliced connection: it is passed on with what has to be
// changed, and nothing else, or left to the stack as it is.
func TestWirePackets(t *testing.T) {
	o := loadWire(t)
	stamps := []byte{1, 1, 8, 10}
	data := []byte("sixteen bytes...")
	v4, v6 := "v4", "v6"
	for _, tc := range []struct {
		name   string
		only   string              // the address family, empty for both
		change func(*crafted)      // makes it of a segment with data
		across func(is *crafted)   // what is special about what becomes of it; nil is that it passes as it is
		raw    func([]byte) []byte // changes the frame
	}{
		{"data", "", func(*crafted) {}, func(*crafted) {}, nil},
		{"data of odd length", "", func(c *crafted) { c.data = data[:7] }, func(*crafted) {}, nil},
		{"acknowledgement", "", func(c *crafted) { c.data = nil }, func(*crafted) {}, nil},
		{"timestamps", "", func(c *crafted) { c.options = join(stamps, be32(7, 8)) }, func(c *crafted) {
			c.options = join(stamps, be32(7+addTS, 8+addEcho))
		}, nil},
		{"timestamps in another place", "", func(c *crafted) { c.options = join([]byte{8, 10}, be32(7, 8), []byte{1, 0}) }, func(c *crafted) {
			c.options = join([]byte{8, 10}, be32(7+addTS, 8+addEcho), []byte{1, 0})
		}, nil},
		{"numbers that wrap", "", func(c *crafted) {
			c.seq, c.ack = ^uint32(0)-10, ^uint32(0)-20
			c.options = join(stamps, be32(^uint32(0), ^uint32(0)-1))
		}, func(c *crafted) { c.options = join(stamps, be32(addTS-1, addEcho-2)) }, nil},
		{"SACK of one block", "", func(c *crafted) { c.options = join(stamps, be32(7, 8), []byte{1, 1, 5, 10}, be32(100, 200)) }, func(c *crafted) {
			c.options = join(stamps, be32(7+addTS, 8+addEcho), []byte{1, 1, 5, 10}, be32(100+addAck, 200+addAck))
		}, nil},
		{"SACK of three blocks", "", func(c *crafted) { c.options = join(stamps, be32(7, 8), []byte{1, 1, 5, 26}, be32(1, 2, 3, 4, 5, 6)) }, func(c *crafted) {
			c.options = join(stamps, be32(7+addTS, 8+addEcho), []byte{1, 1, 5, 26},
				be32(1+addAck, 2+addAck, 3+addAck, 4+addAck, 5+addAck, 6+addAck))
		}, nil},
		{"SACK of four blocks, no timestamps", "", func(c *crafted) { c.options = join([]byte{1, 1, 5, 34}, be32(1, 2, 3, 4, 5, 6, 7, 8)) }, func(c *crafted) {
			c.options = join([]byte{1, 1, 5, 34},
				be32(1+addAck, 2+addAck, 3+addAck, 4+addAck, 5+addAck, 6+addAck, 7+addAck, 8+addAck))
		}, nil},
		{"an option of nobody", "", func(c *crafted) { c.options = []byte{253, 8, 1, 2, 3, 4, 5, 6} }, func(*crafted) {}, nil},
		{"an option of length 0", "", func(c *crafted) { c.options = []byte{1, 1, 8, 0, 1, 2, 3, 4} }, func(*crafted) {}, nil},
		{"an option that is too long", "", func(c *crafted) { c.options = []byte{1, 1, 8, 10, 1, 2, 3, 4} }, func(*crafted) {}, nil},
		{"SACK cut off", "", func(c *crafted) { c.options = []byte{1, 1, 5, 6, 0, 0, 0, 9} }, func(c *crafted) {
			c.options = join([]byte{1, 1, 5, 6}, be32(9+addAck))
		}, nil},
		{"the end of options before others", "", func(c *crafted) { c.options = join([]byte{0, 0, 8, 10}, be32(7, 8)) }, func(*crafted) {}, nil},
		{"a window that is too large", "", func(c *crafted) { c.window = 65535 }, func(c *crafted) { c.window = 65535 }, nil},
		{"no window", "", func(c *crafted) { c.window = 0 }, func(c *crafted) { c.window = 0 }, nil},
		{"a window probe", "", func(c *crafted) { c.seq, c.data = sentByA-1, nil }, func(*crafted) {}, nil},
		{"a keep-alive with a byte", "", func(c *crafted) { c.seq, c.data = sentByA-1, data[:1] }, func(*crafted) {}, nil},
		{"urgent data", "", func(c *crafted) { c.flags, c.urgent = ack|psh|urg, 3 }, func(c *crafted) { c.flags, c.urgent = ack|psh, 0 }, nil},
		{"ECE and CWR", "", func(c *crafted) { c.flags |= ece | cwr }, func(*crafted) {}, nil},
		{"reserved bits", "", func(c *crafted) { c.reserved = 1 }, func(*crafted) {}, nil},
		{"congestion experienced", "", func(c *crafted) { c.tos = 3 }, func(*crafted) {}, nil},
		{"a class of traffic", "", func(c *crafted) { c.tos, c.flowLabel = 0xb9, 0x12345 }, func(*crafted) {}, nil},
		{"FIN", "", func(c *crafted) { c.flags |= fin }, func(*crafted) {}, nil},
		{"RST with an acknowledgement", "", func(c *crafted) { c.flags, c.data = rst|ack, nil }, func(*crafted) {}, nil},
		{"RST without", "", func(c *crafted) { c.flags, c.data, c.ack = rst, nil, 0 }, func(c *crafted) { c.ack = 0 }, nil},
		{"SYN of a live connection", "", func(c *crafted) {
			c.flags, c.data, c.ack, c.options = syn, nil, 0, join([]byte{2, 4, 5, 180, 4, 2, 8, 10}, be32(7, 0), []byte{1, 3, 3, 7})
		}, func(c *crafted) {
			c.ack, c.options = 0, join([]byte{2, 4, 5, 180, 4, 2, 8, 10}, be32(7+addTS, 0), []byte{1, 3, 3, 7})
		}, nil},
		{"don't fragment", v4, func(c *crafted) { c.fragment = 0x4000 }, func(*crafted) {}, nil},
		{"IP options", v4, func(c *crafted) { c.ipOptions = []byte{148, 4, 0, 0, 1, 1, 1, 0} }, func(*crafted) {}, nil},
		{"as many IP options as there can be", v4, func(c *crafted) {
			c.ipOptions = bytes.Repeat([]byte{1}, 40)
			c.options = join(stamps, be32(7, 8), []byte{1, 1, 5, 26}, be32(1, 2, 3, 4, 5, 6))
		}, func(c *crafted) {
			c.options = join(stamps, be32(7+addTS, 8+addEcho), []byte{1, 1, 5, 26},
				be32(1+addAck, 2+addAck, 3+addAck, 4+addAck, 5+addAck, 6+addAck))
		}, nil},

		{"a later fragment", v4, func(c *crafted) { c.fragment = 0x00b9 }, nil, nil},
		{"a later fragment", v6, func(c *crafted) { c.extensions = []byte{44, 6, 0, 0, 0x11, 0, 0, 0, 9} }, nil, nil},
		{"a fragment of another protocol", v6, func(c *crafted) { c.extensions = []byte{44, 17, 0, 0, 1, 0, 0, 0, 9} }, nil, nil},
		{"hop-by-hop options", v6, func(c *crafted) { c.extensions = []byte{0, 6, 0, 1, 4, 0, 0, 0, 0} }, nil, nil},
		// Of test runs the kernel makes no bundles: this one is short.
		{"a bundle of more than 64 KiB", v6, func(c *crafted) { c.extensions = jumbo }, func(*crafted) {}, noLength},
		{"that, with SACK", v6, func(c *crafted) { c.extensions, c.options = jumbo, join([]byte{1, 1, 5, 10}, be32(1, 2)) }, func(c *crafted) {
			c.options = join([]byte{1, 1, 5, 10}, be32(1+addAck, 2+addAck))
		}, noLength},
		{"one with a length too", v6, func(c *crafted) { c.extensions = jumbo }, nil, nil},
		{"destination options", v6, func(c *crafted) { c.extensions = []byte{60, 6, 0, 1, 4, 0, 0, 0, 0} }, nil, nil},
		{"another protocol", "", func(c *crafted) { c.protocol = 17 }, nil, nil},
		{"another port", "", func(c *crafted) { c.to = netip.AddrPortFrom(c.to.Addr(), 82) }, nil, nil},
		{"another address", "", func(c *crafted) { c.from = netip.AddrPortFrom(c.from.Addr().Next(), c.from.Port()) }, nil, nil},
		{"a header that is too short", "", func(*crafted) {}, nil, func(b []byte) []byte { b[len(b)-4-len(data)-20+4+12] = 4 << 4; return b }},
		{"a header that is longer than the segment", "", func(c *crafted) { c.data = nil }, nil, func(b []byte) []byte {
			b[len(b)-20+12] = 15 << 4
			return b
		}},
		{"half a header", "", func(c *crafted) { c.data = nil }, nil, func(b []byte) []byte { return b[:len(b)-10] }},
		{"a VLAN", "", func(*crafted) {}, nil, func(b []byte) []byte {
			return join(b[:12], []byte{0x81, 0, 0, 7}, b[12:])
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i := range ways {
				w := &ways[i]
				if tc.only != "" && tc.only != w.name {
					continue
				}
				keys := w.spliced(t, o)
				was := crafted{
					from: w.a, to: w.ba, seq: sentByA, ack: sentByC - addAck, flags: ack | psh, window: 100, data: data,
				}
				tc.change(&was)
				in := was.frame()
				want, answer := in, int32(wireNext)
				if tc.across != nil {
					is := was
					is.from, is.to, is.seq, is.ack = w.bc, w.c, was.seq+addSeq, was.ack+addAck
					is.window = was.window << (shiftIn - shiftOut)
					is.hops = hopsIn - 1
					tc.across(&is)
					want, answer = is.frame(), wireRedirect
				}
				if tc.raw != nil {
					in, want = tc.raw(in), tc.raw(want)
				}
				ret, out := runWire(t, o, bytes.Clone(in))
				if ret != answer {
					t.Errorf("%s: the program answers %d, want %d", w.name, ret, answer)
				}
				if !bytes.Equal(out[14:], want[14:]) {
					t.Errorf("%s: %x became\n%x, want\n%x", w.name, in, out, want)
				}
				f, err := o.Flow(&keys[0])
				if err != nil || f.Errors > 0 || (f.Packets > 0) != (tc.across != nil) {
					t.Errorf("%s: %+v, %v", w.name, f, err)
				}
				if was.flags&syn != 0 {
					continue // left to those that come in
				}
				// The same on its way out by lo, to another interface.
				keys = w.spliced(t, o)
				if err := o.Route(&keys, [2]uint32{otherInterface, otherInterface}); err != nil {
					t.Fatal(err)
				}
				if ret, out = runOf(t, o.WireEgress, bytes.Clone(in)); ret != answer {
					t.Errorf("%s: on its way out the program answers %d, want %d", w.name, ret, answer)
				}
				if !bytes.Equal(out[14:], want[14:]) {
					t.Errorf("%s: on its way out %x became\n%x, want\n%x", w.name, in, out, want)
				}
			}
		})
	}
}

// otherInterface is not lo, by which test runs come in and leave.
const otherInterface = 2

// What leaves by lo to come in there is rewritten on its way out, or left alone until
// it comes in: once.
func TestWireEgress(t *testing.T) {
	o := loadWire(t)
	for _, tc := range []struct {
		name   string
		state  uint32
		change func(*bpf.WireFlow)
		as     [2]bool // rewritten: IPv4, IPv6
	}{
		{"settled", bpf.WireSpliced, func(*bpf.WireFlow) {}, [2]bool{true, false}},
		{"settled, to the same address", bpf.WireSpliced, func(f *bpf.WireFlow) {
			f.Rewrite.To.Daddr = bpf.WireKeyOf(ways[1].a, ways[1].ba).Daddr
		}, [2]bool{false, true}},
		{"watched", bpf.WirePass, func(*bpf.WireFlow) {}, [2]bool{}},
		{"draining", bpf.WireDraining, func(*bpf.WireFlow) {}, [2]bool{}},
		{"barred", bpf.WireSpliced, func(f *bpf.WireFlow) { f.Barred, f.Bar = 1, sentByA+room }, [2]bool{}},
		{"over", bpf.WireSpliced, func(f *bpf.WireFlow) { f.Over = 1 }, [2]bool{}},
		{"ended", bpf.WireSpliced, func(f *bpf.WireFlow) { f.Verdict = bpf.WireEndedHand }, [2]bool{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i := range ways {
				w := &ways[i]
				if i == 0 && tc.as == [2]bool{false, true} {
					continue // of IPv6
				}
				keys := w.spliced(t, o)
				f, err := o.Flow(&keys[0])
				if err != nil {
					t.Fatal(err)
				}
				f.State = tc.state
				tc.change(&f)
				o.Delete(&keys[0])
				if err := o.Insert(&keys[0], &f); err != nil {
					t.Fatal(err)
				}
				was := crafted{
					from: w.a, to: w.ba, seq: sentByA, ack: sentByC - addAck, flags: ack | psh, window: 100, data: []byte("sixteen bytes..."),
				}
				want := was.frame()
				ret, out := runOf(t, o.WireEgress, was.frame())
				if tc.as[i] {
					is := was
					is.from, is.to, is.seq, is.ack = w.bc, f.Rewrite.To.To(), was.seq+addSeq, was.ack+addAck
					is.hops = hopsIn - 1
					is.window = was.window << (shiftIn - shiftOut)
					want = is.frame()
				}
				if ret != wireNext || !bytes.Equal(out[14:], want[14:]) {
					t.Errorf("%s: the program answers %d, %x became\n%x, want\n%x", w.name, ret, was.frame(), out, want)
				}
				if f, err = o.Flow(&keys[0]); err != nil || f.Errors > 0 || (f.Packets > 0) != tc.as[i] {
					t.Errorf("%s: %+v, %v", w.name, f, err)
				}
			}
		})
	}
}

// A packet has a hop less when it goes across. In its last hop it goes no further, whatever it is.
func TestWireHops(t *testing.T) {
	o := loadWire(t)
	for i := range ways {
		w := &ways[i]
		for hops, want := range map[byte]int32{0: wireDrop, 1: wireDrop, 2: wireRedirect, 255: wireRedirect} {
			keys := w.spliced(t, o)
			in := crafted{from: w.a, to: w.ba, seq: sentByA, ack: sentByC - addAck, flags: ack, data: []byte("data")}.frame()
			at := 14 + 8
			if w.a.Addr().Is6() {
				at = 14 + 7
			}
			in[at] = hops // of IPv4 the checksum is wrong then, and stays so
			ret, out := runWire(t, o, in)
			f, err := o.Flow(&keys[0])
			if ret != want || err != nil || f.Errors > 0 != (want == wireDrop) {
				t.Errorf("%s, %d hops: %d, %+v, %v", w.name, hops, ret, f, err)
			}
			if want == wireRedirect && out[at] != hops-1 {
				t.Errorf("%s: of %d hops %d are left", w.name, hops, out[at])
			}
		}

		// A pair of which that is known beforehand is not switched.
		for hops, want := range map[byte]error{hopsIn: nil, 1: syscall.EHOSTUNREACH} {
			if err := w.switchAfter(t, o, crafted{from: w.a, to: w.ba, hops: hops}); err != want {
				t.Errorf("%s, %d hops: switching says %v, want %v", w.name, hops, err, want)
			}
		}
	}
}

// switchAfter switches a pair that is watched and of which packets have come by: those of A's, and one of C's.
func (w *way) switchAfter(t *testing.T, o *bpf.WireObjects, a ...crafted) error {
	t.Helper()
	keys := w.spliced(t, o)
	for k := range keys {
		o.Delete(&keys[k])
		if err := o.Insert(&keys[k], &bpf.WireFlow{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range append(a, crafted{from: w.c, to: w.bc}) {
		c.flags = ack
		if ret, _ := runWire(t, o, c.frame()); ret != wireNext {
			t.Errorf("%s: the program answers %d before the switch", w.name, ret)
		}
	}
	return o.Switch(&[2]bpf.WireSide{{Key: keys[0]}, {Key: keys[1]}}, true)
}

// A pair one side of which signs its segments is not switched, wherever the signature is.
func TestWireSignatures(t *testing.T) {
	o := loadWire(t)
	timestamps := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	md5 := append([]byte{1, 1, 19, 18}, make([]byte, 16)...)
	ao := append([]byte{29, 16, 1, 1}, make([]byte, 12)...)
	sack := []byte{1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	for i := range ways {
		w := &ways[i]
		for _, tc := range []struct {
			name    string
			options []byte
			want    error
		}{
			{"none", nil, nil},
			{"timestamps", timestamps, nil},
			{"timestamps and SACK", join(timestamps, sack), nil},
			{"behind the end", join(sack, []byte{0, 1, 19, 18}), nil},
			{"MD5", md5, syscall.EKEYREJECTED},
			{"MD5 and timestamps", join(md5, timestamps), syscall.EKEYREJECTED},
			{"timestamps and MD5", join(timestamps, md5), syscall.EKEYREJECTED},
			{"SACK and MD5", join(sack, md5), syscall.EKEYREJECTED},
			{"AO", ao, syscall.EKEYREJECTED},
			{"timestamps and AO", join(timestamps, ao), syscall.EKEYREJECTED},
			{"an option that nobody knows, and AO", join([]byte{253, 4, 0, 0}, ao), syscall.EKEYREJECTED},
			{"one without end", []byte{253, 40, 0, 0}, nil},
		} {
			if err := w.switchAfter(t, o, crafted{from: w.a, to: w.ba, options: tc.options}); err != tc.want {
				t.Errorf("%s, %s: switching says %v, want %v", w.name, tc.name, err, tc.want)
			}
		}
	}
}

// "Unreachable" and "too big" about what has gone across are told to its true sender,
// the packet in question as that one has sent it.
func TestWireErrorsOfRouters(t *testing.T) {
	o := loadWire(t)
	for i := range ways {
		w := &ways[i]
		router := netip.AddrPortFrom(w.c.Addr().Next(), 0)
		quoting := func(kind [2]byte, rest uint32, from, to netip.AddrPort, outer crafted, seq uint32) []byte {
			quoted := crafted{from: from, to: to, seq: seq, flags: ack, data: make([]byte, 500)}.frame()[14:]
			if w.icmp == 1 {
				quoted = quoted[:28] // RFC 792: 8 bytes of what is in it
			} else {
				copy(quoted[40+16:], "??") // the segment's checksum: it stays, right or wrong
			}
			message := join(kind[:], []byte{0, 0}, be32(rest), quoted)
			sum := uint32(0)
			if w.icmp == 58 {
				sum = sum16(uint32(w.icmp)+uint32(len(message)), outer.from.Addr().AsSlice(), outer.to.Addr().AsSlice())
			}
			binary.BigEndian.PutUint16(message[2:], ^uint16(sum16(sum, message)))
			outer.protocol = w.icmp
			return append(outer.network(len(message)), message...)
		}
		for _, tc := range []struct {
			name   string
			kind   [2]byte
			rest   uint32
			from   netip.AddrPort // of the quoted packet
			across bool
		}{
			{"too big", w.tooBig, 1300, w.bc, true},
			{"unreachable", w.unreachable, 0, w.bc, true},
			{"about another connection", w.unreachable, 0, netip.AddrPortFrom(w.bc.Addr(), 999), false},
			{"an echo", [2]byte{8, 0}, 0, w.bc, false},
		} {
			t.Run(w.name+" "+tc.name, func(t *testing.T) {
				keys := w.spliced(t, o)
				in := quoting(tc.kind, tc.rest, tc.from, w.c, crafted{from: router, to: w.bc}, sentByA+addSeq)
				want, answer := in, int32(wireNext)
				if tc.across {
					want = quoting(tc.kind, tc.rest, w.a, w.ba, crafted{from: w.ba, to: w.a, hops: hopsIn - 1}, sentByA)
					answer = wireRedirect
				}
				ret, out := runWire(t, o, bytes.Clone(in))
				if ret != answer || !bytes.Equal(out[14:], want[14:]) {
					t.Errorf("%d, %x\nwant %d, %x", ret, out, answer, want)
				}
				if f, err := o.Flow(&keys[1]); err != nil || (f.Told > 0) != tc.across {
					t.Errorf("%+v, %v", f, err)
				}
			})
		}
	}
}
