// Package rnd makes the random numbers and random block orders of a job:
// fast, repeatable, without allocation.
package rnd

import "math"

// A Rand is a generator of random numbers (xorshift64*; Vigna, "An
// experimental exploration of Marsaglia's xorshift generators, scrambled").
// It stands for fio's tausworthe generators: as good, and not the same numbers.
type Rand struct{ s uint64 }

// New returns a generator; any seed will do.
func New(seed uint64) Rand {
	// splitmix64, so that similar seeds start far apart and none is zero.
	z := seed + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	if z ^= z >> 31; z == 0 {
		z = 1
	}
	return Rand{z}
}

// Uint64 returns 64 random bits.
func (r *Rand) Uint64() uint64 {
	s := r.s
	s ^= s >> 12
	s ^= s << 25
	s ^= s >> 27
	r.s = s
	return s * 0x2545f4914f6cdd1d
}

// Below returns a number below n, which is not 0.
func (r *Rand) Below(n uint64) uint64 {
	if n < 1<<32 {
		return (r.Uint64() >> 32) * n >> 32
	}
	return r.Uint64() % n
}

// Float returns a number in [0, 1).
func (r *Rand) Float() float64 { return float64(r.Uint64()>>11) / (1 << 53) }

// Exp returns an exponentially distributed number with mean 1.
func (r *Rand) Exp() float64 { return -math.Log(1 - r.Float()) }

// Gauss returns a normally distributed number with mean 0 and deviation 1.
func (r *Rand) Gauss() float64 {
	return math.Sqrt(-2*math.Log(1-r.Float())) * math.Cos(2*math.Pi*r.Float())
}
