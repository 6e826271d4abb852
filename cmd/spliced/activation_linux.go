package main

import (
	"os"
	"syscall"
)

// listens says whether listen(2) was called on a socket.
func listens(f *os.File) bool {
	raw, err := f.SyscallConn() // f.Fd() would make the open file a blocking one
	if err != nil {
		return false
	}
	v := 0
	cerr := raw.Control(func(fd uintptr) {
		v, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	})
	return cerr == nil && err == nil && v != 0
}
