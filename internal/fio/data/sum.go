package data

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha3"
	"encoding/binary"
	"hash/crc32"
	"hash/crc64"
	"math/bits"
)

// A kind is a way of verifying: its number in fio's header, the bytes that its
// sum takes there, and the sum itself, appended to dst.
type kind struct {
	name   string
	number uint16
	room   int
	sum    func(dst, data []byte) []byte
}

// kinds follow fio's verify.h.
func kindOf(name string) *kind {
	for _, k := range []kind{
		{"meta", 1, 0, nil},
		{"md5", 2, 16, func(dst, b []byte) []byte { s := md5.Sum(b); return append(dst, s[:]...) }},
		{"crc64", 3, 8, sumCRC64},
		{"crc32", 4, 4, sumCRC32},
		{"crc32c", 5, 4, sumCRC32C},
		{"crc32c-intel", 6, 4, sumCRC32C},
		{"crc16", 7, 2, sumCRC16},
		{"crc7", 8, 1, sumCRC7},
		{"sha256", 9, 64, sumSHA256},
		{"sha512", 10, 128, sumSHA512},
		{"sha3-224", 11, 28, func(dst, b []byte) []byte { s := sha3.Sum224(b); return append(dst, s[:]...) }},
		{"sha3-256", 12, 32, func(dst, b []byte) []byte { s := sha3.Sum256(b); return append(dst, s[:]...) }},
		{"sha3-384", 13, 48, func(dst, b []byte) []byte { s := sha3.Sum384(b); return append(dst, s[:]...) }},
		{"sha3-512", 14, 64, func(dst, b []byte) []byte { s := sha3.Sum512(b); return append(dst, s[:]...) }},
		{"xxhash", 15, 4, func(dst, b []byte) []byte { return binary.LittleEndian.AppendUint32(dst, xxh32(b, 1)) }},
		{"sha1", 16, 20, func(dst, b []byte) []byte { s := sha1.Sum(b); return words4(dst, s[:]) }},
		{"pattern_hdr", 17, 0, nil},
		{"pattern", 18, 0, nil},
		{"null", 19, 0, nil},
	} {
		if k.name == name {
			return &k
		}
	}
	return nil
}

// words4 stores a SHA-1 as fio does: the words of its state in the machine's
// order. Its other digests are stored as they are printed.
func words4(dst, sum []byte) []byte {
	for ; len(sum) >= 4; sum = sum[4:] {
		dst = binary.LittleEndian.AppendUint32(dst, binary.BigEndian.Uint32(sum))
	}
	return dst
}

// castagnoli is hardware on amd64 and arm64; MakeTable returns the same table
// each time.
func crc32c(b []byte) uint32 { return ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func sumCRC32C(dst, b []byte) []byte { return binary.LittleEndian.AppendUint32(dst, crc32c(b)) }

// sumCRC64 starts with 0 and does not invert the result.
func sumCRC64(dst, b []byte) []byte {
	sum := ^crc64.Update(^uint64(0), crc64.MakeTable(0x95AC9329AC4BC9B5), b)
	return binary.LittleEndian.AppendUint64(dst, sum)
}

// sumCRC32 is the IEEE polynomial, highest bit first, from 0.
func sumCRC32(dst, b []byte) []byte {
	// Reversing bits turns it into the reflected form that the standard
	// library computes by hardware: costs less than a table walk.
	var sum uint32
	var chunk [1024]byte
	reflected := ^uint32(0) // Update inverts: this is a register of 0
	table := crc32.MakeTable(crc32.IEEE)
	for len(b) > 0 {
		n := copy(chunk[:], b)
		for i := range n {
			chunk[i] = bits.Reverse8(chunk[i])
		}
		reflected = crc32.Update(reflected, table, chunk[:n])
		b = b[n:]
	}
	sum = bits.Reverse32(^reflected)
	return binary.LittleEndian.AppendUint32(dst, sum)
}

// sumCRC16 is CRC-16/ARC.
func sumCRC16(dst, b []byte) []byte {
	var crc uint16
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa001
			} else {
				crc >>= 1
			}
		}
	}
	return binary.LittleEndian.AppendUint16(dst, crc)
}

// sumCRC7 is CRC-7/MMC.
func sumCRC7(dst, b []byte) []byte {
	var crc byte // in the upper seven bits
	for _, c := range b {
		crc ^= c
		for range 8 {
			if crc&0x80 != 0 {
				crc = crc<<1 ^ 0x09<<1
			} else {
				crc <<= 1
			}
		}
	}
	return append(dst, crc>>1)
}

// xxh32 is XXH32 (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
func xxh32(b []byte, seed uint32) uint32 {
	const p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	n := uint32(len(b))
	var h uint32
	if len(b) >= 16 {
		s := seed
		v1, v2, v3, v4 := s+uint32(p1&0xffffffff)+p2, s+p2, s, s-p1
		round := func(acc uint32, w []byte) uint32 {
			return bits.RotateLeft32(acc+binary.LittleEndian.Uint32(w)*p2, 13) * p1
		}
		for ; len(b) >= 16; b = b[16:] {
			v1, v2, v3, v4 = round(v1, b), round(v2, b[4:]), round(v3, b[8:]), round(v4, b[12:])
		}
		h = bits.RotateLeft32(v1, 1) + bits.RotateLeft32(v2, 7) + bits.RotateLeft32(v3, 12) + bits.RotateLeft32(v4, 18)
	} else {
		h = seed + p5
	}
	h += n
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*p3, 17) * p4
	}
	for _, c := range b {
		h = bits.RotateLeft32(h+uint32(c)*p5, 11) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return h ^ h>>16
}
