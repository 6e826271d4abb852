package stat

import "math"

// Moments are the count, range, mean and deviation of a series (Welford).
type Moments struct {
	N        uint64
	Min, Max uint64
	Mean, s  float64
}

// Add counts a value.
func (m *Moments) Add(v uint64) {
	m.N++
	if v > m.Max {
		m.Max = v
	}
	if v < m.Min || m.N == 1 {
		m.Min = v
	}
	d := float64(v) - m.Mean
	m.Mean += d / float64(m.N)
	m.s += d * (float64(v) - m.Mean)
}

// Merge adds another series (Chan's parallel formula).
func (m *Moments) Merge(o Moments) {
	if o.N == 0 {
		return
	}
	if m.N == 0 {
		*m = o
		return
	}
	n, on := float64(m.N), float64(o.N)
	d := o.Mean - m.Mean
	m.s += o.s + d*d*n*on/(n+on)
	m.Mean = (m.Mean*n + o.Mean*on) / (n + on)
	m.N += o.N
	m.Min, m.Max = min(m.Min, o.Min), max(m.Max, o.Max)
}

// Sum adds a rate that ran beside this one: a group's rates add up.
func (m *Moments) Sum(o Moments) {
	if o.N == 0 {
		return
	}
	if m.N == 0 {
		*m = o
		return
	}
	m.N += o.N
	m.Min += o.Min
	m.Max += o.Max
	m.Mean += o.Mean
	m.s += o.s
}

// Deviation is the standard deviation of the sample.
func (m *Moments) Deviation() float64 {
	if m.N < 2 {
		return 0
	}
	return math.Sqrt(m.s / float64(m.N-1))
}
