package sys

import "golang.org/x/sys/cpu"

// leastRepeat is from how many bytes on REP MOVSB, which takes a while to begin,
// is faster than Go's loop.
const leastRepeat = 2048

// CopyLong is the built-in copy for slices that do not overlap, by the
// instruction that C libraries copy long blocks with where the processor is good
// at it (ERMS). Out of pages that are in no cache it is 10 to 20 % faster than
// Go's copy, as of Go 1.26.
func CopyLong(to, from []byte) int {
	n := min(len(to), len(from))
	if n < leastRepeat || !cpu.X86.HasERMS {
		return copy(to, from)
	}
	repeatMove(&to[0], &from[0], n)
	return n
}

// repeatMove copies n bytes upwards.
//
//go:noescape
func repeatMove(to, from *byte, n int)
