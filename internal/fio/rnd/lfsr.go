package rnd

import "math/bits"

// An LFSR visits each number below n once, in an order that looks random, and
// needs no memory of where it was.
type LFSR struct {
	n, mask, taps, state, start uint64
	left                        uint64
}

// NewLFSR returns a generator over n numbers; n is not 0.
func NewLFSR(n, seed uint64) *LFSR {
	width := max(bits.Len64(n), 3)
	l := &LFSR{n: n, mask: 1<<width - 1, taps: maximalTaps(width)}
	l.Reset(seed)
	return l
}

// Reset starts anew.
func (l *LFSR) Reset(seed uint64) {
	r := New(seed)
	if l.start = r.Uint64() & l.mask; l.start == 0 {
		l.start = 1
	}
	l.state, l.left = l.start, l.n
}

// Next returns the next number; false after all n.
func (l *LFSR) Next() (uint64, bool) {
	if l.left == 0 {
		return 0, false
	}
	for {
		v := l.state - 1
		low := l.state & 1
		l.state >>= 1
		if low != 0 {
			l.state ^= l.taps
		}
		if v < l.n {
			l.left--
			return v, true
		}
	}
}

// maximalTaps returns the feedback mask of a Galois register of the width with
// the longest period (Xilinx XAPP 052, table 3).
func maximalTaps(width int) uint64 {
	taps := [...][]int{
		3: {3, 2}, 4: {4, 3}, 5: {5, 3}, 6: {6, 5}, 7: {7, 6}, 8: {8, 6, 5, 4}, 9: {9, 5}, 10: {10, 7},
		11: {11, 9}, 12: {12, 6, 4, 1}, 13: {13, 4, 3, 1}, 14: {14, 5, 3, 1}, 15: {15, 14},
		16: {16, 15, 13, 4}, 17: {17, 14}, 18: {18, 11}, 19: {19, 6, 2, 1}, 20: {20, 17}, 21: {21, 19},
		22: {22, 21}, 23: {23, 18}, 24: {24, 23, 22, 17}, 25: {25, 22}, 26: {26, 6, 2, 1},
		27: {27, 5, 2, 1}, 28: {28, 25}, 29: {29, 27}, 30: {30, 6, 4, 1}, 31: {31, 28},
		32: {32, 22, 2, 1}, 33: {33, 20}, 34: {34, 27, 2, 1}, 35: {35, 33}, 36: {36, 25},
		37: {37, 5, 4, 3, 2, 1}, 38: {38, 6, 5, 1}, 39: {39, 35}, 40: {40, 38, 21, 19},
		41: {41, 38}, 42: {42, 41, 20, 19}, 43: {43, 42, 38, 37}, 44: {44, 43, 18, 17},
		45: {45, 44, 42, 41}, 46: {46, 45, 26, 25}, 47: {47, 42}, 48: {48, 47, 21, 20},
	}
	if width >= len(taps) {
		width = len(taps) - 1
	}
	var mask uint64
	for _, t := range taps[width] {
		mask |= 1 << (t - 1)
	}
	return mask
}
