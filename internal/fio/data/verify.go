package data

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/spliced-io/spliced/internal/fio/job"
)

// The header that each verified interval begins with has the layout of fio
// 3.33 on little-endian 64-bit machines, so that each reads what the other
// wrote: magic 2, kind 2, length 4, seed 8, offset 8, seconds 4, nanoseconds 4,
// thread 2, number 2, CRC-32C of all this 4, and the kind's sum.
const (
	magic      = 0xacca
	headerLen  = 40
	headerSums = 36 // bytes that the header's own sum covers
)

// A Block is what is known about a block: where it is, what filled it and
// which write of the job it was.
type Block struct {
	Offset uint64
	Seed   uint64
	Number uint64
	Thread int
	Now    int64 // ns since 1970
}

// Known says what of a block a check may rely on.
type Known struct {
	Seed, Number bool
}

// A Mismatch is a block that does not hold what it should.
type Mismatch struct {
	Kind   string
	Offset uint64 // of the interval
	Length int
	At     int // first wrong byte inside the interval, -1 if not known
	What   string
}

func (m *Mismatch) Error() string {
	s := fmt.Sprintf("%s: verify failed at offset %d, length %d", m.Kind, m.Offset, m.Length)
	if m.At >= 0 {
		s += fmt.Sprintf(", first wrong byte at %d", m.Offset+uint64(m.At))
	}
	return s + ": " + m.What
}

// A Verifier fills blocks so that they can be checked, and checks them. It
// belongs to one job and is not safe for concurrent use.
type Verifier struct {
	kind     *kind
	interval int
	offset   int // where the header is inside its interval
	pattern  *job.Pattern
	sequence bool
	seed     bool
	unalign  bool
	got      []byte
	spare    []byte
}

// NewVerifier returns nil if the job does not verify.
func NewVerifier(o *job.Options) (*Verifier, error) {
	if o.Verify == "" {
		return nil, nil
	}
	v := &Verifier{
		kind: kindOf(o.Verify), interval: int(o.VerifyInterval), offset: int(o.VerifyOffset),
		pattern: o.VerifyPattern, sequence: o.VerifySequence, seed: o.VerifyHeaderSeed, unalign: o.BSUnaligned,
	}
	if v.interval == 0 && !o.BSUnaligned {
		// All blocks are multiples of the smallest one: overlapping
		// writes of different sizes then still leave whole intervals.
		v.interval = int(min(o.BS[job.Read].Min, o.BS[job.Write].Min))
	}
	if !v.Headers() {
		return v, nil
	}
	least := uint64(v.headerSize())
	for _, bs := range []uint64{o.BS[job.Read].Min, o.BS[job.Write].Min, uint64(max(v.interval, 0))} {
		if bs != 0 && bs < least {
			return nil, fmt.Errorf("verify=%s needs blocks of %d bytes, not %d", o.Verify, least, bs)
		}
	}
	if v.offset > 0 && v.offset < v.headerSize() {
		return nil, fmt.Errorf("verify_offset=%d is inside the header of %d bytes", v.offset, v.headerSize())
	}
	if v.offset > 0 && v.interval > 0 && v.offset+v.headerSize() > v.interval {
		return nil, fmt.Errorf("verify_offset=%d leaves no room for the header in %d bytes", v.offset, v.interval)
	}
	return v, nil
}

// Headers says whether blocks have headers.
func (v *Verifier) Headers() bool { return v.kind.name != "pattern" && v.kind.name != "null" }

// Pretends says whether checks always succeed.
func (v *Verifier) Pretends() bool { return v.kind.name == "null" }

func (v *Verifier) headerSize() int { return headerLen + v.kind.room }

func (v *Verifier) step(n int) int {
	if v.interval > 0 && v.interval <= n && !v.unalign {
		return v.interval
	}
	return n
}

// Fill makes the contents of a block.
func (v *Verifier) Fill(b []byte, k Block) {
	if v.pattern == nil {
		Random(b, k.Seed)
	}
	step := v.step(len(b))
	for i := 0; i < len(b); i += step {
		part := b[i:min(i+step, len(b))]
		if v.pattern != nil {
			Repeat(part, v.pattern, k.Offset+uint64(i))
		}
		if v.Headers() && len(part) >= v.headerSize() {
			v.head(part, k, k.Offset+uint64(i))
		}
	}
}

func (v *Verifier) head(part []byte, k Block, offset uint64) {
	h := binary.LittleEndian
	size := v.headerSize()
	h.PutUint16(part, magic)
	h.PutUint16(part[2:], v.kind.number)
	h.PutUint32(part[4:], uint32(len(part)))
	h.PutUint64(part[8:], k.Seed)
	h.PutUint64(part[16:], offset)
	h.PutUint32(part[24:], uint32(k.Now/1e9))
	h.PutUint32(part[28:], uint32(k.Now%1e9))
	h.PutUint16(part[32:], uint16(k.Thread))
	h.PutUint16(part[34:], uint16(k.Number))
	h.PutUint32(part[36:], crc32c(part[:headerSums]))
	if v.kind.room > 0 {
		clear(part[headerLen:size])
		v.got = v.kind.sum(v.got[:0], part[size:])
		copy(part[headerLen:size], v.got)
	}
	v.swap(part)
}

// swap exchanges the header with the bytes at verify_offset.
func (v *Verifier) swap(part []byte) {
	if v.offset == 0 {
		return
	}
	size := v.headerSize()
	v.spare = append(v.spare[:0], part[:size]...)
	copy(part[:size], part[v.offset:v.offset+size])
	copy(part[v.offset:], v.spare)
}

// Check compares a block with what it should hold. It may change b.
func (v *Verifier) Check(b []byte, k Block, known Known) error {
	if v.Pretends() {
		return nil
	}
	step := v.step(len(b))
	for i := 0; i < len(b); i += step {
		part := b[i:min(i+step, len(b))]
		offset := k.Offset + uint64(i)
		var m *Mismatch
		switch {
		case !v.Headers():
			m = v.comparePattern(part, 0, offset)
		case len(part) >= v.headerSize():
			m = v.checkHeaded(part, k, offset, known)
		}
		if m != nil {
			m.Kind, m.Offset, m.Length = v.kind.name, offset, len(part)
			return m
		}
	}
	return nil
}

func (v *Verifier) checkHeaded(part []byte, k Block, offset uint64, known Known) *Mismatch {
	v.swap(part)
	if m := v.checkHeader(part, k, offset, known); m != nil {
		return m
	}
	size := v.headerSize()
	if v.pattern != nil {
		if m := v.comparePattern(part, size, offset); m != nil {
			return m
		}
	}
	if v.kind.sum == nil {
		return nil
	}
	v.got = v.kind.sum(v.got[:0], part[size:])
	want := part[headerLen : headerLen+len(v.got)]
	equal := bytes.Equal(v.got, want)
	if equal && v.kind.name != "sha512" || v.pattern != nil && equal {
		return nil
	}
	at := -1
	if v.pattern == nil {
		at = v.firstWrong(part, size, k.Offset, offset, known.Seed)
	}
	switch {
	case !equal:
		return &Mismatch{At: at, What: fmt.Sprintf("sum %x, want %x", v.got, want)}
	case at >= 0: // fio's SHA-512 covers the two ends only
		return &Mismatch{At: at, What: "not what was written"}
	}
	return nil
}

// firstWrong rebuilds the data from the seed in the header, which is intact,
// to say which byte is wrong; -1 if none is, or if most are and it is not
// certain that this program wrote them: fio makes other data of the seed.
func (v *Verifier) firstWrong(part []byte, size int, block, offset uint64, certain bool) int {
	skip := int(offset - block)
	n := skip + len(part)
	if cap(v.spare) < n {
		v.spare = make([]byte, n)
	}
	want := v.spare[:n]
	Random(want, binary.LittleEndian.Uint64(part[8:]))
	want = want[skip:]
	at, wrong := -1, 0
	for i := size; i < len(part); i++ {
		if part[i] != want[i] {
			if wrong++; at < 0 {
				at = i
			}
		}
	}
	// The data's first bytes are what the sum covers in every mode.
	begins := bytes.Equal(part[size:min(size+32, len(part))], want[size:min(size+32, len(part))])
	if wrong > len(part)/2 && !certain && !begins {
		return -1
	}
	return at
}

func (v *Verifier) checkHeader(part []byte, k Block, offset uint64, known Known) *Mismatch {
	h := binary.LittleEndian
	bad := func(what string, got, want uint64) *Mismatch {
		return &Mismatch{At: -1, What: fmt.Sprintf("bad header %s %d, wanted %d", what, got, want)}
	}
	if got := h.Uint16(part); got != magic {
		return &Mismatch{At: -1, What: fmt.Sprintf("bad magic header %x, wanted %x", got, magic)}
	}
	if got := h.Uint32(part[4:]); got != uint32(len(part)) {
		return bad("length", uint64(got), uint64(len(part)))
	}
	if got := h.Uint64(part[8:]); known.Seed && v.seed && got != k.Seed {
		return &Mismatch{At: -1, What: fmt.Sprintf("bad header rand_seed %x, wanted %x", got, k.Seed)}
	}
	if got := h.Uint64(part[16:]); got != offset {
		return bad("offset", got, offset)
	}
	if got := h.Uint16(part[34:]); known.Number && v.sequence && got != uint16(k.Number) {
		return bad("numberio", uint64(got), uint64(uint16(k.Number)))
	}
	if got, want := h.Uint32(part[36:]), crc32c(part[:headerSums]); got != want {
		return &Mismatch{At: -1, What: fmt.Sprintf("bad header crc %x, calculated %x", got, want)}
	}
	// crc32c and crc32c-intel are one sum.
	same := func(k uint16) uint16 {
		if k == 6 {
			return 5
		}
		return k
	}
	if got := h.Uint16(part[2:]); same(got) != same(v.kind.number) {
		return bad("kind", uint64(got), uint64(v.kind.number))
	}
	return nil
}

// comparePattern checks the bytes of an interval from skip on.
func (v *Verifier) comparePattern(part []byte, skip int, offset uint64) *Mismatch {
	if len(v.spare) < len(part) {
		v.spare = make([]byte, len(part))
	}
	want := v.spare[:len(part)]
	Repeat(want, v.pattern, offset)
	if bytes.Equal(part[skip:], want[skip:]) {
		return nil
	}
	for i := skip; i < len(part); i++ {
		if part[i] != want[i] {
			return &Mismatch{At: i, What: fmt.Sprintf("got pattern %02x, wanted %02x, bad bits %d",
				part[i], want[i], bits.OnesCount8(part[i]^want[i]))}
		}
	}
	return nil
}
