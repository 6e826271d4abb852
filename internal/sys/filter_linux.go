package sys

import "golang.org/x/sys/unix"

// AttachFilter has a BPF program of the type socket filter see what comes to a
// socket: it drops, or shortens, what the program's result says
// (SO_ATTACH_BPF). A filter that was there is replaced.
func AttachFilter(fd, program int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, program)
}

// DetachFilter takes the filter away. Without one it is ENOENT.
func DetachFilter(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
}

// HasFilter says whether a socket has a filter.
func HasFilter(fd int) bool {
	// Without room for them, SO_GET_FILTER counts the instructions; it refuses
	// (EACCES) to show a program that came as eBPF.
	var n uint32
	err := getsockopt(fd, unix.SOL_SOCKET, unix.SO_GET_FILTER, nil, &n)
	return err != nil || n != 0
}
