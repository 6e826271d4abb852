package testnet

import (
	"encoding/binary"
	"net/netip"
)

// Flags of a [Segment].
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// A Segment is a TCP segment that somebody makes up: [Namespace.Forge].
type Segment struct {
	From, To    netip.AddrPort
	Seq, Ack    uint32
	Flags       byte
	Window      uint16 // as in the packet
	Stamped     bool
	Stamp, Echo uint32
	Data        []byte
}

// Packet is the IP packet with it.
func (s *Segment) Packet() []byte {
	tcp := make([]byte, 20, 32+len(s.Data))
	if s.Stamped {
		tcp = append(tcp, 1, 1, 8, 10)
		tcp = binary.BigEndian.AppendUint32(tcp, s.Stamp)
		tcp = binary.BigEndian.AppendUint32(tcp, s.Echo)
	}
	tcp[12], tcp[13] = byte(len(tcp))<<2, s.Flags
	tcp = append(tcp, s.Data...)
	binary.BigEndian.PutUint16(tcp, s.From.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.To.Port())
	binary.BigEndian.PutUint32(tcp[4:], s.Seq)
	binary.BigEndian.PutUint32(tcp[8:], s.Ack)
	binary.BigEndian.PutUint16(tcp[14:], s.Window)
	from, to := s.From.Addr().AsSlice(), s.To.Addr().AsSlice()
	sum := uint32(6 + len(tcp))
	for _, part := range [][]byte{from, to, tcp} {
		for i, b := range part {
			sum += uint32(b) << (8 * (1 - i%2))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	var ip []byte
	if s.From.Addr().Is4() {
		ip = make([]byte, 12, 20+len(tcp)) // Linux fills in the checksum
		ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, 64, 6
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(tcp)))
	} else {
		ip = make([]byte, 8, 40+len(tcp))
		ip[0], ip[6], ip[7] = 0x60, 6, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(len(tcp)))
	}
	ip = append(append(ip, from...), to...)
	return append(ip, tcp...)
}

// parseSegment reads a TCP segment without its IP header.
func parseSegment(from, to netip.Addr, tcp []byte) (s Segment, ok bool) {
	if len(tcp) < 20 || int(tcp[12]>>2) < 20 || int(tcp[12]>>2) > len(tcp) {
		return s, false
	}
	options := tcp[20:int(tcp[12]>>2)]
	s = Segment{
		From: netip.AddrPortFrom(from, binary.BigEndian.Uint16(tcp)), To: netip.AddrPortFrom(to, binary.BigEndian.Uint16(tcp[2:])),
		Seq: binary.BigEndian.Uint32(tcp[4:]), Ack: binary.BigEndian.Uint32(tcp[8:]), Flags: tcp[13],
		Window: binary.BigEndian.Uint16(tcp[14:]), Data: tcp[int(tcp[12]>>2):],
	}
	if len(options) >= 12 && options[2] == 8 && options[3] == 10 {
		s.Stamped, s.Stamp, s.Echo = true, binary.BigEndian.Uint32(options[4:]), binary.BigEndian.Uint32(options[8:])
	}
	return s, true
}
