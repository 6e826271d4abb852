package sys

import "golang.org/x/sys/unix"

// MapShared maps the first n bytes of a BPF map's values (BPF_F_MMAPABLE, Linux
// 5.5), to be read and written. [Unmap] undoes it.
func MapShared(fd, n int) ([]byte, error) {
	return unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// NetnsCookie returns the number of the network namespace that a socket is in
// (SO_NETNS_COOKIE, Linux 5.14).
func NetnsCookie(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
}
