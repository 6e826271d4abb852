package netbench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

// MaxSize is the most bytes that a message or a write may have.
const MaxSize = 1 << 20

const (
	// patternPeriod is prime: a chunk of a buffer's usual size that is left
	// out or repeated shifts what follows to a place where it is not expected.
	patternPeriod = 68539
	// maxChunk is the most that is written at once.
	maxChunk = MaxSize
)

// A pattern says which byte belongs at each offset of a stream. All streams
// share its bytes; each begins somewhere else in them.
type pattern struct {
	bytes []byte // one period, and on from its start for maxChunk
}

func newPattern() *pattern {
	p := &pattern{make([]byte, patternPeriod+maxChunk)}
	random := rand.NewChaCha8([32]byte{'s', 'p', 'l', 'i', 'c', 'e', 'd'})
	_, _ = random.Read(p.bytes[:patternPeriod]) // never fails
	for n := patternPeriod; n < len(p.bytes); n *= 2 {
		copy(p.bytes[n:], p.bytes[:n])
	}
	return p
}

// at returns the n bytes, at most maxChunk, from an offset of a stream on.
func (p *pattern) at(stream uint64, offset int64, n int) []byte {
	start := (stream%patternPeriod*7919 + uint64(offset)) % patternPeriod
	return p.bytes[start:][:n]
}

// check compares what arrived at an offset of a stream with what belongs
// there.
func (p *pattern) check(stream uint64, offset int64, got []byte) error {
	for len(got) > 0 {
		n := min(len(got), maxChunk)
		want := p.at(stream, offset, n)
		if !bytes.Equal(got[:n], want) {
			i := 0
			for got[i] == want[i] {
				i++
			}
			return &MismatchError{Offset: offset + int64(i), Got: got[i], Want: want[i]}
		}
		got, offset = got[n:], offset+int64(n)
	}
	return nil
}

// A MismatchError is a byte that is not the one that was sent.
type MismatchError struct {
	Offset    int64 // in the stream, after the header
	Got, Want byte
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("byte %d of the stream is %#02x, want %#02x", e.Offset, e.Got, e.Want)
}
