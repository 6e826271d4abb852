package proxyproto

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
)

// signature begins version 2, prefix version 1.
const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	prefix    = "PROXY "

	shortestV1 = len("PROXY UNKNOWN\r\n")
)

// Parse reads the header at the beginning of b and says how many bytes it has.
// With need > 0 b is too short: no verdict is possible before there are that
// many. An error is an [*Error]. The header shares no memory with b.
func Parse(b []byte) (h Header, size, need int, err error) {
	switch {
	case len(b) == 0:
		need = shortestV1
	case begins(b, signature):
		h, size, need, err = parseV2(b)
	case begins(b, prefix):
		h, size, need, err = parseV1(b)
	default:
		err = wrong("there is none")
	}
	if err != nil || need > 0 {
		return Header{}, 0, need, err
	}
	return h, size, 0, nil
}

// begins says whether b begins with s, as far as it goes.
func begins(b []byte, s string) bool {
	n := min(len(b), len(s))
	return string(b[:n]) == s[:n]
}

// parseV1 reads a line of text: section 2.1.
func parseV1(b []byte) (h Header, size, need int, err error) {
	end := bytes.IndexByte(b[:min(len(b), maxV1)], '\n')
	switch {
	case end < 0 && len(b) >= maxV1:
		return h, 0, 0, wrong("a line of version 1 with more than 107 bytes")
	case end < 0:
		return h, 0, max(shortestV1, len(b)+1), nil
	case end == 0 || b[end-1] != '\r':
		return h, 0, 0, wrong("a line of version 1 without CR before its LF")
	}
	h = Header{Version: 1}
	words := strings.Split(string(b[len(prefix):max(len(prefix), end-1)]), " ")
	switch words[0] {
	case "UNKNOWN":
		return h, end + 1, 0, nil // whatever follows is to be ignored
	case "TCP4", "TCP6":
	default:
		return h, 0, 0, wrong("version 1 is for TCP4, TCP6 or UNKNOWN, not " + strconv.Quote(words[0]))
	}
	if len(words) != 5 {
		return h, 0, 0, wrong("version 1 has two addresses and two ports, one space before each")
	}
	six := words[0] == "TCP6"
	if h.Source, err = endpoint(words[1], words[3], six); err == nil {
		h.Destination, err = endpoint(words[2], words[4], six)
	}
	return h, end + 1, 0, err
}

func endpoint(address, port string, six bool) (netip.AddrPort, error) {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Zone() != "" || ip.Is4() == six {
		return netip.AddrPort{}, wrong(strconv.Quote(address) + " is no address of that family")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return netip.AddrPort{}, wrong(strconv.Quote(port) + " is no port")
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}

// The families and their protocols: byte 14 of version 2. The protocol of a
// connection that was forwarded may be UDP, whatever this one is.
const (
	familyUnspec = 0
	familyIPv4   = 1
	familyIPv6   = 2
	familyUnix   = 3

	protocolDatagram = 2 // 0 is unknown, 1 stream

	pathSize = 108 // of a unix socket's address
)

// parseV2 reads the binary form: section 2.2.
func parseV2(b []byte) (h Header, size, need int, err error) {
	if len(b) < fixedV2 {
		return h, 0, fixedV2, nil
	}
	command, family, protocol := b[12], b[13]>>4, b[13]&15
	size = fixedV2 + int(b[14])<<8 + int(b[15])
	switch {
	case command>>4 != 2:
		return h, 0, 0, wrong("the version is neither 1 nor 2")
	case command&15 > 1:
		return h, 0, 0, wrong("the command is neither LOCAL nor PROXY")
	case size > MaxBytes:
		return h, 0, 0, wrong("it is longer than 16 KiB")
	case len(b) < size:
		return h, 0, size, nil
	}
	h = Header{Version: 2}
	if command&15 == 0 {
		h.Local = true // the rest is to be ignored
		return h, size, 0, nil
	}
	if family > familyUnix || protocol > protocolDatagram {
		return h, 0, 0, wrong("a family or protocol that is not defined")
	}
	block := b[fixedV2:size]
	switch family {
	case familyIPv4:
		block, err = h.addresses(block, 4)
	case familyIPv6:
		block, err = h.addresses(block, 16)
	case familyUnix:
		block, err = h.paths(block)
	case familyUnspec:
		// Whether addresses come before the values nobody can say.
		return h, size, 0, nil
	}
	if err == nil {
		err = h.values(block, b[:size])
	}
	return h, size, 0, err
}

var errAddresses = wrong("it is too short for its addresses")

func (h *Header) addresses(b []byte, size int) (rest []byte, err error) {
	if len(b) < 2*size+4 {
		return nil, errAddresses
	}
	source, _ := netip.AddrFromSlice(b[:size])
	destination, _ := netip.AddrFromSlice(b[size : 2*size])
	ports := b[2*size:]
	h.Source = netip.AddrPortFrom(source.Unmap(), uint16(ports[0])<<8|uint16(ports[1]))
	h.Destination = netip.AddrPortFrom(destination.Unmap(), uint16(ports[2])<<8|uint16(ports[3]))
	return ports[4:], nil
}

func (h *Header) paths(b []byte) (rest []byte, err error) {
	if len(b) < 2*pathSize {
		return nil, errAddresses
	}
	h.SourcePath, h.DestinationPath = path(b[:pathSize]), path(b[pathSize:2*pathSize])
	return b[2*pathSize:], nil
}

// path leaves out the zeroes at the end.
func path(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// values reads the TLVs in b, the end of a header.
func (h *Header) values(b, header []byte) error {
	summed := false
	for len(b) > 0 {
		if len(b) < 3 || len(b) < 3+int(b[1])<<8+int(b[2]) {
			return wrong("a value is cut short")
		}
		kind, value := b[0], b[3:3+int(b[1])<<8+int(b[2])]
		b = b[3+len(value):]
		switch kind {
		case typeNoop:
		case typeCRC32C:
			if summed || len(value) != 4 {
				return wrong("a checksum twice, or not of 4 bytes")
			}
			summed = true
			if !verified(header, len(header)-len(b)-4) {
				return wrong("the checksum (CRC32c) is that of other bytes")
			}
		default:
			h.TLVs = append(h.TLVs, TLV{kind, bytes.Clone(value)})
		}
	}
	return nil
}
