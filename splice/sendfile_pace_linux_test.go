package splice

import (
	"testing"
	"time"
)

// However slow a file is, the calls come to be as short as a deadline may wait;
// of one that is fast, few are made.
func TestSendFilePace(t *testing.T) {
	for _, c := range []struct {
		name    string
		speed   float64 // bytes a second
		longest time.Duration
		most    int // calls for 1 GiB, or for 20 s
	}{
		{"memory", 4e9, longCall, 22},
		{"network file system", 10e6, longCall + 1*time.Millisecond, 900},
		{"disk", 150e6, longCall, 300},
		{"very slow", 1e6, 300 * time.Millisecond, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, calls := firstChunk, 0
			var all time.Duration
			for sent := 0.0; sent < 1<<30 && all < 20*time.Second; calls++ {
				took := time.Duration(float64(p) / c.speed * float64(time.Second))
				if calls > 3 && took > c.longest {
					t.Fatalf("call %d of %d bytes takes %v, more than %v", calls, p, took, c.longest)
				}
				all += took
				sent += float64(p)
				p = p.next(took, true)
			}
			if calls > c.most {
				t.Errorf("%d calls, more than %d", calls, c.most)
			}
		})
	}
	if got := pace(8<<20).next(time.Millisecond, false); got != 8<<20 {
		t.Errorf("a full socket changes the pace to %d", got)
	}
}
