package sys

import "golang.org/x/sys/unix"

// UnshareNetns gives the calling thread a new, empty network namespace
// (CAP_SYS_ADMIN). The goroutine must be locked to its thread.
func UnshareNetns() error { return unix.Unshare(unix.CLONE_NEWNET) }

// SetNetns moves the calling thread to the network namespace that fd refers to
// (CAP_SYS_ADMIN). The goroutine must be locked to its thread.
func SetNetns(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) }

// BindMount makes the file source appear at the existing file target.
func BindMount(source, target string) error {
	return unix.Mount(source, target, "", unix.MS_BIND, "")
}

// Unmount takes a mount away at once, and frees it when its last user is gone.
// EINVAL: there is no mount at target.
func Unmount(target string) error { return unix.Unmount(target, unix.MNT_DETACH) }
