package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bind is bind(2). A socket in repair mode gets its address whoever has it too.
func Bind(fd int, to *Address) error {
	_, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.size))
	if e != 0 {
		return e
	}
	return nil
}

// SetULP puts a protocol on top of a TCP socket (TCP_ULP), "tls" for instance.
func SetULP(fd int, name string) error {
	return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_ULP, name)
}

// Capabilities are sets of capabilities (linux/capability.h), a bit for each.
type Capabilities struct{ Effective, Permitted, Inheritable uint64 }

// GetCapabilities is capget(2), of the calling thread.
func GetCapabilities() (c Capabilities, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return c, err
	}
	join := func(low, high uint32) uint64 { return uint64(high)<<32 | uint64(low) }
	return Capabilities{
		Effective:   join(data[0].Effective, data[1].Effective),
		Permitted:   join(data[0].Permitted, data[1].Permitted),
		Inheritable: join(data[0].Inheritable, data[1].Inheritable),
	}, nil
}
