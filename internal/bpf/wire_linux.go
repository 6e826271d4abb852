package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
)

// The states of a flow's entry, as in wire.c.
const (
	WirePass = iota
	WireSpliced
	WireDraining
)

// The verdicts of a flow's entry, as in wire.c.
const (
	WireEndedFIN  = 1
	WireEndedRST  = 2
	WireEndedHand = 3
)

// WireFinned is in an entry's PeerFin, beside the number, when that is of a FIN for certain, as in wire_flow.h.
const WireFinned = 1 << 32

// The commands of wire_control.
const (
	wireSwitch = iota + 1
	wireSettle
	wireBar
	wireEnd
	wireRoute
	wireDrain
)

const wireAnyhow = 1 // a flag of wireSwitch

// What [WirePrograms.Bar] does to a direction, as in wire.c.
const (
	wireBarNone = iota
	wireBarAt
	wireBarHere
)

// WireKeyOf returns the key of the packets that go from one address to another.
func WireKeyOf(from, to netip.AddrPort) WireKey {
	k := WireKey{Sport: bigEndian16(from.Port()), Dport: bigEndian16(to.Port())}
	src, dst := from.Addr().As16(), to.Addr().As16()
	for i := range 4 {
		k.Saddr[i] = binary.NativeEndian.Uint32(src[4*i:])
		k.Daddr[i] = binary.NativeEndian.Uint32(dst[4*i:])
	}
	return k
}

// From is where the packets come from.
func (k WireKey) From() netip.AddrPort { return addrPort(k.Saddr, k.Sport) }

// To is where the packets go.
func (k WireKey) To() netip.AddrPort { return addrPort(k.Daddr, k.Dport) }

// Reverse is the key of the packets that go the other way.
func (k WireKey) Reverse() WireKey {
	k.Saddr, k.Daddr, k.Sport, k.Dport = k.Daddr, k.Saddr, k.Dport, k.Sport
	return k
}

func addrPort(addr [4]uint32, port uint16) netip.AddrPort {
	var b [16]byte
	for i, v := range addr {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(b).Unmap(), bigEndian16(port))
}

func bigEndian16(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// A WireSide is what a command says about one of a pair's entries.
type WireSide struct {
	Key      WireKey
	Received uint32 // what the socket has received: rcv_nxt
	Edge     uint32 // its peer can be expected to send up to there
	Promised uint32 // its peer may send up to there
	Beyond   uint64 // see WireBar
	Rewrite  WireRewrite
}

// Switch has data of both sides go across from now on. EOVERFLOW, unless anyhow:
// one side may send by now more than the other has room for. EAGAIN: a side was
// not seen yet. ENOTCONN: one has sent a FIN or a RST. EHOSTUNREACH: one has sent
// a packet that came in its last hop. EKEYREJECTED: one signs its segments. EMSGSIZE: some of one
// come in fragments. ENODEV: one is on this machine, and bound to another interface than lo. EALREADY: it is switched.
func (p *WirePrograms) Switch(sides *[2]WireSide, anyhow bool) error {
	var flags uint32
	if anyhow {
		flags = wireAnyhow
	}
	return p.control(wireSwitch, flags, sides)
}

// Settle has all go across, that which was sent before the switch too.
func (p *WirePrograms) Settle(keys *[2]WireKey) error {
	return p.control(wireSettle, 0, &[2]WireSide{{Key: keys[0]}, {Key: keys[1]}})
}

// Drain has the sockets of a switched pair deliver what they have received by now, although it was settled: of the sides
// Received counts.
func (p *WirePrograms) Drain(sides *[2]WireSide) error {
	return p.control(wireDrain, 0, sides)
}

// A WireBar bounds what goes across from a side: data and FINs beyond it are
// dropped, so that their sender sends them again later.
type WireBar struct {
	Set  bool
	Here bool   // at the end of what has gone across
	At   uint32 // else at that sequence number of the sender
	// Beyond is how much later than At the limit is. The program puts the bar forward by
	// itself: At must be at most 1 GiB ahead of what has gone across.
	Beyond uint64
}

// Bar sets the bars of a spliced pair.
func (p *WirePrograms) Bar(keys *[2]WireKey, bars *[2]WireBar) error {
	var sides [2]WireSide
	for i, b := range bars {
		sides[i].Key, sides[i].Received = keys[i], b.At
		switch {
		case b.Set && b.Here:
			sides[i].Edge = wireBarHere
		case b.Set:
			sides[i].Edge, sides[i].Beyond = wireBarAt, b.Beyond
		}
	}
	return p.control(wireBar, 0, &sides)
}

// Route has the packets of each side leave by an interface from now on; 0 leaves it
// as it is.
func (p *WirePrograms) Route(keys *[2]WireKey, ifindexes [2]uint32) error {
	sides := [2]WireSide{{Key: keys[0]}, {Key: keys[1]}}
	for i := range sides {
		sides[i].Rewrite.Ifindex = ifindexes[i]
	}
	return p.control(wireRoute, 0, &sides)
}

// End has nothing of a spliced pair go across any more, and tells the process that
// has it. EALREADY: it has ended. EAGAIN: it is not spliced.
func (p *WirePrograms) End(keys *[2]WireKey) error {
	return p.control(wireEnd, 0, &[2]WireSide{{Key: keys[0]}, {Key: keys[1]}})
}

func (p *WirePrograms) control(op, flags uint32, sides *[2]WireSide) error {
	c := WireCommand{Op: op, Flags: flags}
	for i := range sides {
		c.Side[i].Key = sides[i].Key
		c.Side[i].Received, c.Side[i].Edge, c.Side[i].Promised = sides[i].Received, sides[i].Edge, sides[i].Promised
		c.Side[i].Beyond, c.Side[i].Rewrite = sides[i].Beyond, sides[i].Rewrite
	}
	data := unsafe.Slice((*byte)(unsafe.Pointer(&c)), unsafe.Sizeof(c))
	ret, err := p.WireControl.Run(&ebpf.RunOptions{Data: data})
	if err != nil {
		return fmt.Errorf("run wire_control: %w", err)
	}
	if ret != 0 {
		return syscall.Errno(ret)
	}
	return nil
}

// Insert adds an entry. EEXIST: there is one. E2BIG: the table is full.
func (m *WireMaps) Insert(k *WireKey, f *WireFlow) error {
	err := m.Flows.Update(k, f, ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		return syscall.EEXIST
	}
	return err
}

// Flow returns an entry. ENOENT: there is none.
func (m *WireMaps) Flow(k *WireKey) (f WireFlow, err error) {
	err = m.Flows.LookupWithFlags(k, &f, ebpf.LookupLock)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = syscall.ENOENT
	}
	return f, err
}

// Delete takes an entry out, if it is there.
func (m *WireMaps) Delete(k *WireKey) { _ = m.Flows.Delete(k) }
