package wire

import (
	"encoding/binary"
	"syscall"

	"github.com/spliced-io/spliced/internal/bpf"
)

// tooBig is what a router says about a packet that does not fit its next link: "fragmentation
// needed" (RFC 1191) or "packet too big" (RFC 4443). It quotes the packet as its sender knows it:
// its header, and the ports and the sequence number by which the sender recognizes it.
func tooBig(o *bpf.WireOversize) []byte {
	sender, self := o.Key.From(), o.Key.To()
	ipHeader := headers4 - 20
	kind := []byte{3, 4, 0, 0, 0, 0}
	if sender.Addr().Is6() {
		ipHeader = headers6 - 20
		kind = []byte{2, 0, 0, 0}
	}
	message := kind
	if sender.Addr().Is6() {
		message = binary.BigEndian.AppendUint32(message, o.Mtu)
	} else {
		message = binary.BigEndian.AppendUint16(message, uint16(min(o.Mtu, 65535)))
	}
	quoted := header(sender.Addr(), self.Addr(), syscall.IPPROTO_TCP, int(o.Size)-ipHeader)
	if sender.Addr().Is4() {
		binary.BigEndian.PutUint16(quoted[10:], ^sum16(0, quoted))
	}
	message = append(message, quoted...)
	message = binary.BigEndian.AppendUint16(message, sender.Port())
	message = binary.BigEndian.AppendUint16(message, self.Port())
	message = binary.BigEndian.AppendUint32(message, o.Seq)

	protocol, sum := byte(syscall.IPPROTO_ICMP), sum16(0, message)
	if sender.Addr().Is6() {
		protocol = syscall.IPPROTO_ICMPV6
		pseudo := uint32(len(message)) + syscall.IPPROTO_ICMPV6
		sum = sum16(pseudo, self.Addr().AsSlice(), sender.Addr().AsSlice(), message)
	}
	binary.BigEndian.PutUint16(message[2:], ^sum)
	return append(header(self.Addr(), sender.Addr(), protocol, len(message)), message...)
}
