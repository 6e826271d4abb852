package rnd

import "math"

// A Skewed draws block numbers below n that are not evenly spread: zipf and
// pareto make a few blocks hot, scattered over the range by a hash; normal
// makes the middle hot.
type Skewed struct {
	r      *Rand
	n      uint64
	kind   string
	theta  float64
	zetan  float64
	alpha  float64
	eta    float64
	power  float64
	shift  uint64
	center float64
}

// NewSkewed prepares a distribution: "zipf", "pareto" or "normal". Center is
// where the hottest blocks are, as a fraction of the range; negative: anywhere.
func NewSkewed(r *Rand, kind string, n uint64, theta, center float64) *Skewed {
	s := &Skewed{r: r, n: n, kind: kind, theta: theta, center: center}
	switch kind {
	case "zipf":
		// Gray et al., "Quickly generating billion-record synthetic
		// databases", section 3.2. The sum is exact up to ten million
		// terms and an integral beyond.
		s.zetan = zeta(n, theta)
		s.alpha = 1 / (1 - theta)
		zeta2 := 1 + math.Pow(0.5, theta)
		s.eta = (1 - math.Pow(2/float64(n), 1-theta)) / (1 - zeta2/s.zetan)
	case "pareto":
		s.power = math.Log(theta) / math.Log(1-theta)
	}
	if center >= 0 {
		s.shift = uint64(center * float64(n-1))
	} else {
		s.shift = r.Below(n)
	}
	return s
}

func zeta(n uint64, theta float64) float64 {
	const exact = 10_000_000
	var sum float64
	for i := uint64(1); i <= min(n, exact); i++ {
		sum += math.Pow(float64(i), -theta)
	}
	if n > exact {
		sum += (math.Pow(float64(n), 1-theta) - math.Pow(exact, 1-theta)) / (1 - theta)
	}
	return sum
}

// Next draws a block.
func (s *Skewed) Next() uint64 {
	switch s.kind {
	case "zipf":
		return s.place(s.zipf())
	case "pareto":
		return s.place(min(uint64(float64(s.n)*math.Pow(s.r.Float(), s.power)), s.n-1))
	default:
		center := s.center
		if center < 0 {
			center = 0.5
		}
		for range 64 {
			v := (center + s.r.Gauss()*s.theta/100) * float64(s.n)
			if v >= 0 && v < float64(s.n) {
				return uint64(v)
			}
		}
		return s.r.Below(s.n)
	}
}

func (s *Skewed) zipf() uint64 {
	u := s.r.Float()
	uz := u * s.zetan
	switch {
	case uz < 1 || s.n < 2:
		return 0
	case uz < 1+math.Pow(0.5, s.theta):
		return 1
	}
	return min(uint64(float64(s.n)*math.Pow(s.eta*u-s.eta+1, s.alpha)), s.n-1)
}

// place turns a rank into a block.
func (s *Skewed) place(rank uint64) uint64 {
	if s.center >= 0 {
		return (rank + s.shift) % s.n
	}
	return (rank*0x9e37_79b1 + s.shift) % s.n
}
