package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// A segment is a TCP segment that this machine makes up.
type segment struct {
	from, to         netip.AddrPort
	seq, ack         uint32
	window           uint16 // as in the packet
	reset, fin       bool
	known            bool // one byte of data, which the receiver has
	stamped          bool
	stamp, stampEcho uint32
}

const (
	flagFIN = 1
	flagRST = 4
	flagACK = 16
)

// bytes returns the packet, IP header included. The kernel fills in the
// checksum of an IPv4 header.
func (s *segment) bytes() []byte {
	headers, data := 20, 0
	if s.stamped {
		headers += 12
	}
	if s.known {
		data = 1
	}
	tcp := make([]byte, headers)
	binary.BigEndian.PutUint16(tcp[0:], s.from.Port())
	binary.BigEndian.PutUint16(tcp[2:], s.to.Port())
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	tcp[12] = byte(headers / 4 << 4)
	tcp[13] = flagACK
	if s.reset {
		tcp[13] |= flagRST
	}
	if s.fin {
		tcp[13] |= flagFIN
	}
	binary.BigEndian.PutUint16(tcp[14:], s.window)
	if s.stamped {
		copy(tcp[20:], []byte{1, 1, 8, 10})
		binary.BigEndian.PutUint32(tcp[24:], s.stamp)
		binary.BigEndian.PutUint32(tcp[28:], s.stampEcho)
	}
	from, to := s.from.Addr().AsSlice(), s.to.Addr().AsSlice()
	binary.BigEndian.PutUint16(tcp[16:], ^sum16(uint32(syscall.IPPROTO_TCP+headers+data), from, to, tcp))
	tcp = append(tcp, make([]byte, data)...) // which is nothing to a sum
	return append(header(s.from.Addr(), s.to.Addr(), syscall.IPPROTO_TCP, len(tcp)), tcp...)
}

// header makes the IP header of a packet with so many bytes in it. The kernel fills in the
// checksum of the one that it sends.
func header(from, to netip.Addr, protocol byte, size int) []byte {
	const ttl = 64
	if from.Is4() {
		ip := make([]byte, 20, 20+size)
		ip[0] = 4<<4 | 5
		binary.BigEndian.PutUint16(ip[2:], uint16(20+size))
		ip[6] = 0x40 // don't fragment
		ip[8], ip[9] = ttl, protocol
		copy(ip[12:], from.AsSlice())
		copy(ip[16:], to.AsSlice())
		return ip
	}
	ip := make([]byte, 40, 40+size)
	ip[0] = 6 << 4
	binary.BigEndian.PutUint16(ip[4:], uint16(size))
	ip[6], ip[7] = protocol, ttl
	copy(ip[8:], from.AsSlice())
	copy(ip[24:], to.AsSlice())
	return ip
}

// sum16 adds up 16-bit words, as checksums do. The parts are of even length.
func sum16(sum uint32, parts ...[]byte) uint16 {
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// send sends it from this machine, whatever sockets there are.
func (p *Plane) send(s *segment) error { return p.sendPacket(s.bytes(), s.to.Addr()) }

func (p *Plane) sendPacket(packet []byte, to netip.Addr) error {
	fd := p.raw[0]
	if to.Is6() {
		fd = p.raw[1]
	}
	if err := sys.SendPacket(fd, packet, to); err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	return nil
}
