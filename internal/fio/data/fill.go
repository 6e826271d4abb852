// Package data fills the buffers of a job and checks what comes back.
package data

import (
	"encoding/binary"
	"unsafe"

	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/fio/rnd"
)

// Random fills b from a seed: the same seed gives the same bytes.
func Random(b []byte, seed uint64) {
	r := rnd.New(seed)
	n := len(b) / 8 * 8
	if n > 0 && uintptr(unsafe.Pointer(&b[0]))%8 == 0 {
		words := unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), n/8)
		for i := range words {
			words[i] = r.Uint64()
		}
	} else {
		for i := 0; i < n; i += 8 {
			binary.NativeEndian.PutUint64(b[i:], r.Uint64())
		}
	}
	if n < len(b) {
		var last [8]byte
		binary.NativeEndian.PutUint64(last[:], r.Uint64())
		copy(b[n:], last[:])
	}
}

// Repeat fills b with a pattern that belongs to the block at offset.
func Repeat(b []byte, p *job.Pattern, offset uint64) {
	if len(p.At) > 0 {
		once := min(len(p.Bytes), len(b))
		copy(b, p.Bytes[:once])
		var off [8]byte
		binary.LittleEndian.PutUint64(off[:], offset)
		for _, at := range p.At {
			if at < len(b) {
				copy(b[at:once], off[:])
			}
		}
		double(b, once)
		return
	}
	double(b, copy(b, p.Bytes))
}

// double repeats the first n bytes of b over the rest.
func double(b []byte, n int) {
	for n < len(b) {
		n += copy(b[n:], b[:n])
	}
}

// A Filler makes the data of writes that nobody verifies.
type Filler struct {
	o       *job.Options
	r       rnd.Rand
	history []uint64 // seeds that dedupe may repeat
}

// NewFiller returns the filler of a job.
func NewFiller(o *job.Options, seed uint64) *Filler { return &Filler{o: o, r: rnd.New(seed)} }

// Once fills a buffer when the job starts.
func (f *Filler) Once(b []byte) {
	switch {
	case f.o.ZeroBuffers:
		clear(b)
	case f.o.BufferPattern != nil && f.o.Compress < 0:
		Repeat(b, f.o.BufferPattern, 0)
	default:
		f.refill(b)
	}
}

// Each says whether Next has work to do for each write.
func (f *Filler) Each() bool {
	return !f.o.ZeroBuffers && (f.o.BufferPattern == nil || f.o.Compress >= 0) &&
		(f.o.RefillBuffers || f.o.Scramble || f.o.Dedupe > 0)
}

// Next changes a buffer before a write: all of it, or a few bytes of each 512
// so that no two blocks are the same.
func (f *Filler) Next(b []byte, offset, now uint64) {
	switch {
	case f.o.RefillBuffers || f.o.Dedupe > 0 || f.o.Compress >= 0 && f.o.Scramble && f.o.RefillBuffers:
		f.refill(b)
	case f.o.Scramble:
		draw := f.r.Uint64() // 16 draws of a place at a time
		for i := 0; i+16 <= len(b); i += 512 {
			if i&(512*16-1) == 0 && i > 0 {
				draw = f.r.Uint64()
			}
			at := i + int(draw&15)*30
			draw >>= 4
			if at+16 > len(b) {
				at = i
			}
			p := b[at : at+16 : at+16]
			binary.LittleEndian.PutUint64(p, offset+uint64(i))
			binary.LittleEndian.PutUint64(p[8:], now)
		}
	}
}

func (f *Filler) refill(b []byte) {
	seed := f.r.Uint64()
	if f.o.Dedupe > 0 {
		if len(f.history) > 0 && int(f.r.Below(100)) < f.o.Dedupe {
			seed = f.history[f.r.Below(uint64(len(f.history)))]
		} else if len(f.history) < 4096 {
			f.history = append(f.history, seed)
		}
	}
	if f.o.Compress < 0 {
		Random(b, seed)
		return
	}
	// Each chunk is random first and compressible for the rest.
	chunk := int(min(max(f.o.CompressChunk, 8), uint64(len(b))))
	for i := 0; i < len(b); i += chunk {
		part := b[i:min(i+chunk, len(b))]
		cut := len(part) * (100 - f.o.Compress) / 100
		Random(part[:cut], seed+uint64(i))
		if f.o.BufferPattern != nil {
			Repeat(part[cut:], f.o.BufferPattern, 0)
		} else {
			clear(part[cut:])
		}
	}
}
