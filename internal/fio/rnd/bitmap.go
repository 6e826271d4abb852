package rnd

import "math/bits"

// A Map remembers which blocks were used and finds free ones fast: each level
// has a bit for each full word of the one below.
type Map struct {
	n      uint64
	left   uint64
	levels [][]uint64
}

// NewMap returns a map of n free blocks.
func NewMap(n uint64) *Map {
	m := &Map{n: n}
	for words := (n + 63) / 64; ; words = (words + 63) / 64 {
		m.levels = append(m.levels, make([]uint64, words))
		if words <= 1 {
			break
		}
	}
	m.Reset()
	return m
}

// Bytes says what a map of n blocks costs.
func Bytes(n uint64) uint64 { return n/8 + n/8/63 + 64 }

// Reset frees all blocks.
func (m *Map) Reset() {
	size := m.n
	for _, level := range m.levels {
		clear(level)
		// What is beyond the end counts as used.
		if rest := size % 64; rest != 0 {
			level[size/64] = ^uint64(0) << rest
		}
		size = (size + 63) / 64
	}
	m.left = m.n
}

// Left returns how many blocks are free.
func (m *Map) Left() uint64 { return m.left }

// Used says whether block i is used.
func (m *Map) Used(i uint64) bool { return m.levels[0][i/64]>>(i%64)&1 != 0 }

// Take marks up to n blocks from i on as used, until one that is used already,
// and returns how many.
func (m *Map) Take(i, n uint64) uint64 {
	var got uint64
	for ; got < n && i+got < m.n && !m.Used(i+got); got++ {
		m.set(i + got)
	}
	m.left -= got
	return got
}

func (m *Map) set(i uint64) {
	for _, level := range m.levels {
		level[i/64] |= 1 << (i % 64)
		if level[i/64] != ^uint64(0) {
			return
		}
		i /= 64
	}
}

// NextFree returns the first free block from i on, from the beginning again
// after the last one. False: none is free.
func (m *Map) NextFree(i uint64) (uint64, bool) {
	if m.left == 0 {
		return 0, false
	}
	if j, ok := m.from(0, i); ok {
		return j, true
	}
	return m.from(0, 0)
}

// from looks on a level for the first zero bit at or after i.
func (m *Map) from(depth int, i uint64) (uint64, bool) {
	level := m.levels[depth]
	word := i / 64
	if word >= uint64(len(level)) {
		return 0, false
	}
	if free := ^level[word] >> (i % 64) << (i % 64); free != 0 {
		return word*64 + uint64(bits.TrailingZeros64(free)), true
	}
	if depth+1 == len(m.levels) {
		return 0, false
	}
	word, ok := m.from(depth+1, word+1)
	if !ok {
		return 0, false
	}
	return word*64 + uint64(bits.TrailingZeros64(^level[word])), true
}
