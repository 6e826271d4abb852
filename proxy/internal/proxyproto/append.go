package proxyproto

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"slices"
	"strconv"
)

// Append appends the header, in its version, to b. Version 1 has no values and
// no paths: it leaves the values out, and says UNKNOWN of unix sockets. checksum
// adds one to version 2, which guards the header only.
func Append(b []byte, h *Header, checksum bool) ([]byte, error) {
	switch h.Version {
	case 1:
		return h.appendV1(b), nil
	case 2:
		return h.appendV2(b, checksum)
	}
	return nil, errors.New("PROXY header: want version 1 or 2")
}

// known says whether both addresses are.
func (h *Header) known() bool { return !h.Local && h.Source.IsValid() && h.Destination.IsValid() }

// alike returns the two in one family: if they are not of the same, as IPv6.
func (h *Header) alike() (source, destination netip.AddrPort) {
	source = netip.AddrPortFrom(h.Source.Addr().Unmap().WithZone(""), h.Source.Port())
	destination = netip.AddrPortFrom(h.Destination.Addr().Unmap().WithZone(""), h.Destination.Port())
	if source.Addr().Is4() == destination.Addr().Is4() {
		return source, destination
	}
	six := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
	}
	return six(source), six(destination)
}

func (h *Header) appendV1(b []byte) []byte {
	if !h.known() {
		return append(b, "PROXY UNKNOWN\r\n"...)
	}
	source, destination := h.alike()
	family := "TCP6"
	if source.Addr().Is4() {
		family = "TCP4"
	}
	b = append(append(append(b, prefix...), family...), ' ')
	b = append(source.Addr().AppendTo(b), ' ')
	b = append(destination.Addr().AppendTo(b), ' ')
	b = append(appendPort(b, source.Port()), ' ')
	return append(appendPort(b, destination.Port()), "\r\n"...)
}

func (h *Header) appendV2(b []byte, checksum bool) ([]byte, error) {
	start := len(b)
	b = append(b, signature...)
	if h.Local {
		return append(b, 0x20, 0, 0, 0), nil
	}
	b = append(b, 0x21, 0, 0, 0) // family and length come later
	const stream = 1
	switch family := start + 13; {
	case h.known():
		source, destination := h.alike()
		b[family] = familyIPv6<<4 | stream
		if source.Addr().Is4() {
			b[family] = familyIPv4<<4 | stream
		}
		b = append(append(b, source.Addr().AsSlice()...), destination.Addr().AsSlice()...)
		b = binary.BigEndian.AppendUint16(b, source.Port())
		b = binary.BigEndian.AppendUint16(b, destination.Port())
	case h.SourcePath != "" || h.DestinationPath != "":
		if len(h.SourcePath) > pathSize || len(h.DestinationPath) > pathSize {
			return nil, errors.New("PROXY header: the path of a unix socket has more than 108 bytes")
		}
		b[family] = familyUnix<<4 | stream
		b = appendPath(appendPath(b, h.SourcePath), h.DestinationPath)
	default:
		// Nobody reads values behind an unknown family: see parseV2.
		return b, nil
	}
	for _, v := range h.TLVs {
		var err error
		if b, err = v.append(b); err != nil {
			return nil, err
		}
	}
	if checksum {
		b = append(b, typeCRC32C, 0, 4, 0, 0, 0, 0)
	}
	if len(b)-start > MaxBytes {
		return nil, errors.New("PROXY header: it would be longer than 16 KiB")
	}
	binary.BigEndian.PutUint16(b[start+14:], uint16(len(b)-start-fixedV2))
	if checksum {
		binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[start:], castagnoli))
	}
	return b, nil
}

func (v TLV) append(b []byte) ([]byte, error) {
	if len(v.Value) > maxBlock {
		return nil, errors.New("PROXY header: a value is longer than 16 KiB")
	}
	b = append(b, v.Type)
	b = binary.BigEndian.AppendUint16(b, uint16(len(v.Value)))
	return append(b, v.Value...), nil
}

func appendPort(b []byte, port uint16) []byte {
	return strconv.AppendUint(b, uint64(port), 10)
}

func appendPath(b []byte, path string) []byte {
	return append(append(b, path...), slices.Repeat([]byte{0}, pathSize-len(path))...)
}
