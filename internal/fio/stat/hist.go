// Package stat counts: latencies in fio's histogram buckets, means and
// deviations, and what a job did in each direction.
package stat

import "math/bits"

const (
	histBits = 6
	groupLen = 1 << histBits
	groups   = 29
	// Buckets is how many a histogram has. Bucket widths double every 64
	// buckets, so a value is off by at most 1/128 (fio's stat.h); values
	// beyond 2^34 ns go to the last one.
	Buckets = groups * groupLen
)

// A Hist is a histogram of nanoseconds.
type Hist [Buckets]uint64

// Bucket returns the number of a value's bucket.
func Bucket(v uint64) int {
	top := bits.Len64(v) - 1
	if top <= histBits {
		return int(v)
	}
	shift := top - histBits
	i := (shift+1)<<histBits + int(v>>shift&(groupLen-1))
	return min(i, Buckets-1)
}

// Middle returns the value that stands for a bucket.
func Middle(i int) uint64 {
	if i < 2*groupLen {
		return uint64(i)
	}
	shift := i>>histBits - 1
	return 1<<(shift+histBits) + uint64((float64(i%groupLen)+0.5)*float64(uint64(1)<<shift))
}

// Add counts a value.
func (h *Hist) Add(v uint64) { h[Bucket(v)]++ }

// Merge adds another histogram.
func (h *Hist) Merge(other *Hist) {
	for i, n := range other {
		h[i] += n
	}
}

// Total returns how many values were counted.
func (h *Hist) Total() uint64 {
	var n uint64
	for _, c := range h {
		n += c
	}
	return n
}

// Percentiles returns the values below which the given percentages (sorted
// upwards) of all values are.
func (h *Hist) Percentiles(list []float64) []uint64 {
	total := h.Total()
	out := make([]uint64, len(list))
	var sum uint64
	j := 0
	for i, n := range h {
		sum += n
		for n > 0 && j < len(list) && float64(sum) >= list[j]/100*float64(total) {
			out[j] = Middle(i)
			j++
		}
	}
	return out
}
