//go:build unix

package proxy

import (
	"math"
	"syscall"
)

// maxFiles is the soft limit, which Go has raised to the hard one.
func maxFiles() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxUint64
	}
	return uint64(limit.Cur)
}
