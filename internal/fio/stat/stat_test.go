package stat

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The bounds of fio's stat.h: exact below 128, then within 1/128.
func TestBuckets(t *testing.T) {
	for v := range uint64(128) {
		if got := Middle(Bucket(v)); got != v {
			t.Errorf("%d is counted as %d", v, got)
		}
	}
	for _, c := range []struct{ value, middle uint64 }{ // seen in fio 3.33's json+
		{26116, 26240}, {2250, 2256}, {15590, 15552}, {1896479, 1892352}, {32767, 32640}, {32768, 33024},
	} {
		if got := Middle(Bucket(c.value)); got != c.middle {
			t.Errorf("%d is counted as %d, fio counts it as %d", c.value, got, c.middle)
		}
	}
	last := -1
	for v := uint64(1); v < 1<<34; v += v/50 + 1 {
		b := Bucket(v)
		if b < last {
			t.Errorf("the bucket of %d is below that of a smaller value", v)
		}
		last = b
		if e := math.Abs(float64(Middle(b))-float64(v)) / float64(v); e > 1.0/128 {
			t.Errorf("%d is counted as %d: off by %.2f %%", v, Middle(b), 100*e)
		}
	}
	if Bucket(math.MaxUint64) != Buckets-1 {
		t.Error("the largest value is not in the last bucket")
	}
}

func TestPercentiles(t *testing.T) {
	var h Hist
	for v := range uint64(100) {
		h.Add(v + 1)
	}
	got := h.Percentiles([]float64{1, 50, 99, 100})
	for i, want := range []uint64{1, 50, 99, 100} {
		if got[i] != want {
			t.Errorf("percentile %d is %d, want %d", i, got[i], want)
		}
	}
}

func TestMomentsMergeAsIfTheyWereOne(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var all, a, b Moments
	var sum, squares float64
	for i := range 10_000 {
		v := uint64(r.ExpFloat64() * 1000)
		all.Add(v)
		sum += float64(v)
		squares += float64(v) * float64(v)
		if i%3 == 0 {
			a.Add(v)
		} else {
			b.Add(v)
		}
	}
	a.Merge(b)
	n := 10_000.0
	dev := math.Sqrt((squares - sum*sum/n) / (n - 1))
	for name, m := range map[string]*Moments{"all": &all, "merged": &a} {
		if m.N != all.N || m.Min != all.Min || m.Max != all.Max ||
			math.Abs(m.Mean-sum/n) > 1e-6 || math.Abs(m.Deviation()-dev) > 1e-6 {
			t.Errorf("%s: mean %v deviation %v, want %v and %v", name, m.Mean, m.Deviation(), sum/n, dev)
		}
	}
}

func TestClasses(t *testing.T) {
	for ns, want := range map[uint64][2]int{ // unit, class
		1: {0, 0}, 2: {0, 1}, 999: {0, 9}, 1000: {1, 0}, 2000: {1, 1}, 749_000: {1, 8}, 999_999: {1, 9},
		1_000_000: {2, 0}, 999_999_999: {2, 9}, 1_000_000_000: {2, 10}, 2_000_000_000: {2, 11},
	} {
		var j Job
		j.Class(ns)
		rows := [][]uint64{j.ClassNS[:], j.ClassUS[:], j.ClassMS[:]}
		if rows[want[0]][want[1]] != 1 {
			t.Errorf("%d ns: %v", ns, rows)
		}
	}
}
