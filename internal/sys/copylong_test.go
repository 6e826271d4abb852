package sys

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestCopyLong(t *testing.T) {
	from := make([]byte, 20000)
	for i := range from {
		from[i] = byte(rand.Uint32())
	}
	for _, n := range []int{0, 1, 2047, 2048, 2049, 4096, 9999} {
		for _, at := range []int{0, 1, 63, 4095} {
			for _, room := range []int{n, n + 100, n / 2} {
				to := make([]byte, at+room+64)
				want := bytes.Clone(to)
				wantN := copy(want[at:at+room], from[at*2:at*2+n])
				if got := CopyLong(to[at:at+room], from[at*2:at*2+n]); got != wantN || !bytes.Equal(to, want) {
					t.Errorf("%d bytes to %d at %d: copied %d, want %d; equal %v", n, room, at, got, wantN, bytes.Equal(to, want))
				}
			}
		}
	}
}
