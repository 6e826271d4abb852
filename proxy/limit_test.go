package proxy

import "testing"

func TestConnsIn(t *testing.T) {
	for files, want := range map[uint64]int{
		0: 1, 3: 1, 50: 1, 70: 8, 1024: 366, 20000: 9464, 1 << 20: 523752, 1<<64 - 1: 1<<30 - 1,
	} {
		if got := connsIn(files); got != want {
			t.Errorf("connsIn(%d) = %d, want %d", files, got, want)
		}
	}
}
