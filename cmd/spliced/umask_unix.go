//go:build unix

package main

import "syscall"

// privately has files that are made from now on be their owner's alone, until the function
// that it returns is called. It is the whole process's.
func privately() (restore func()) {
	before := syscall.Umask(0o177)
	return func() { syscall.Umask(before) }
}
