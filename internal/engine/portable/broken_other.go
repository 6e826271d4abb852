//go:build !windows

package portable

import "syscall"

func isBrokenHere(syscall.Errno) bool { return false }
