package data

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
)

// fio 3.33's SHA-256 and SHA-512 are not those of FIPS 180-4, and what is
// written with them can be read by nobody else, so its mistakes are repeated
// here. In both, the memory in which a block is collected is the sum's place in
// the header.

// sumSHA256 has the length at the end of the message in the machine's order,
// and only the lowest byte of each word of the state; after those 8 bytes
// follows the rest of the last block.
func sumSHA256(dst, b []byte) []byte {
	const block, lengthAt = sha256.BlockSize, sha256.BlockSize - 8
	h := sha256.New()
	whole := len(b) / block * block
	h.Write(b[:whole])
	var last [block]byte
	n := copy(last[:], b[whole:])
	last[n] = 0x80
	if n >= lengthAt {
		h.Write(last[:])
		last = [block]byte{}
	}
	binary.LittleEndian.PutUint64(last[lengthAt:], uint64(len(b))*8)
	h.Write(last[:])
	// All that was written are whole blocks: the state stands after a magic
	// number of 4 bytes.
	state, err := h.(encoding.BinaryAppender).AppendBinary(nil)
	if err != nil {
		panic(err) // documented not to happen
	}
	for i := range 8 {
		last[i] = byte(binary.BigEndian.Uint32(state[4+4*i:]))
	}
	return append(dst, last[:]...)
}

// sumSHA512 is not finished: what is left is the first block of the message,
// overwritten by what does not fill the last one. Of messages shorter than a
// block fio does not say what the rest is.
func sumSHA512(dst, b []byte) []byte {
	var block [128]byte
	if len(b) >= len(block) {
		copy(block[:], b)
	}
	copy(block[:], b[len(b)/len(block)*len(block):])
	return append(dst, block[:]...)
}
