package main

import "encoding/binary"

// golden is 2^64 divided by the golden ratio, and odd: its multiples visit
// every 64-bit word before one comes back.
const golden = 0x9E3779B97F4A7C15

// fillPattern fills b with what /bytes/N has from the offset at on: the 64-bit
// words (i+1) × 0x9E3779B97F4A7C15 mod 2^64 for i = 0, 1, 2…, big-endian. No
// stretch of it stands at two places, so bytes that were lost, doubled or
// swapped on the way change it.
func fillPattern(b []byte, at int64) {
	word := (uint64(at)/8 + 1) * golden
	if skip := int(at % 8); skip != 0 {
		var w [8]byte
		binary.BigEndian.PutUint64(w[:], word)
		n := copy(b, w[skip:])
		b = b[n:]
		word += golden
	}
	for ; len(b) >= 8; b = b[8:] {
		binary.BigEndian.PutUint64(b, word)
		word += golden
	}
	if len(b) > 0 {
		var w [8]byte
		binary.BigEndian.PutUint64(w[:], word)
		copy(b, w[:])
	}
}
