package netbench

import (
	"math"
	"slices"
)

// significance is the chance of a difference at least as great between rounds
// that differ by nothing, below which [Diff] takes one for real: benchstat's,
// too.
const significance = 0.05

// rankTest is the Mann-Whitney U test, two-sided: how likely the rounds of two
// runs would be as far apart as these if they were all of one distribution,
// whatever its shape is. It looks at their order only, so one outlier weighs no
// more than any round. It is exact, ties included, for up to mostExact rounds,
// and beyond them a normal approximation, corrected for ties and continuity.
func rankTest(a, b []float64) (p float64) {
	const mostExact = 50
	if len(a) == 0 || len(b) == 0 {
		return 1
	}
	n, total := len(a), len(a)+len(b)
	ranks := doubleRanks(a, b)
	sum := 0
	for _, r := range ranks[:n] {
		sum += r
	}
	expected := n * (total + 1) // of the doubled ranks
	distance := abs(sum - expected)
	if total > mostExact {
		return normalTail(ranks, n, distance)
	}
	// ways[k][s] is in how many ways k of the rounds have ranks that add up to s.
	all := total * (total + 1)
	ways := make([][]float64, n+1)
	for k := range ways {
		ways[k] = make([]float64, all+1)
	}
	ways[0][0] = 1
	for _, r := range ranks {
		for k := n; k > 0; k-- {
			for s := all; s >= r; s-- {
				ways[k][s] += ways[k-1][s-r]
			}
		}
	}
	extreme, any := 0.0, 0.0
	for s, w := range ways[n] {
		any += w
		if abs(s-expected) >= distance {
			extreme += w
		}
	}
	return extreme / any
}

// leastP is the least that [rankTest] can say of so many rounds: of all ways to
// deal them out, only the two extreme ones are left.
func leastP(n, m int) float64 {
	ways := 1.0
	for i := 1; i <= n; i++ {
		ways *= float64(m+i) / float64(i)
	}
	return min(2/ways, 1)
}

// doubleRanks returns twice the rank of each value of a and then of b, among
// all of them; equal values share the mean of their ranks.
func doubleRanks(a, b []float64) []int {
	values := slices.Concat(a, b)
	sorted := slices.Sorted(slices.Values(values))
	ranks := make([]int, len(values))
	for i, v := range values {
		first, _ := slices.BinarySearch(sorted, v)
		last := first
		for last+1 < len(sorted) && sorted[last+1] == v {
			last++
		}
		ranks[i] = first + 1 + last + 1
	}
	return ranks
}

func normalTail(ranks []int, n, distance int) float64 {
	total := len(ranks)
	mean, squares := float64(total+1), 0.0 // of the doubled ranks
	for _, r := range ranks {
		squares += (float64(r) - mean) * (float64(r) - mean)
	}
	// The variance of a sum that is drawn without putting back.
	variance := float64(n) * float64(total-n) / float64(total) / float64(total-1) * squares
	if variance == 0 {
		return 1
	}
	const continuity = 1 // half a rank
	z := max(float64(distance)-continuity, 0) / math.Sqrt(variance)
	return math.Erfc(z / math.Sqrt2)
}

// apart tells whether all of a lie on one side of all of b.
func apart(a, b []float64) bool {
	return slices.Max(a) < slices.Min(b) || slices.Max(b) < slices.Min(a)
}

// apartButOne is [apart] without the one round that is most in the way.
func apartButOne(a, b []float64) bool {
	without := func(sorted []float64, other []float64) bool {
		return len(sorted) > 1 && (apart(sorted[1:], other) || apart(sorted[:len(sorted)-1], other))
	}
	return without(slices.Sorted(slices.Values(a)), b) || without(slices.Sorted(slices.Values(b)), a)
}

func abs(n int) int { return max(n, -n) }
