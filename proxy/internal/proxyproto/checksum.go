package proxyproto

import (
	"encoding/binary"
	"hash/crc32"
)

// castagnoli is of the polynomial that RFC 4960 appendix B gives.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// verified says whether the four bytes at header[at:] are its checksum, taken
// with zeroes in their place.
func verified(header []byte, at int) bool {
	crc := crc32.Update(0, castagnoli, header[:at])
	crc = crc32.Update(crc, castagnoli, make([]byte, 4))
	crc = crc32.Update(crc, castagnoli, header[at+4:])
	return crc == binary.BigEndian.Uint32(header[at:])
}
