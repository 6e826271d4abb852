package sys

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FsOpen is fsopen(2): a context in which a file system is set up (Linux 5.2).
func FsOpen(fsType string) (fd int, err error) { return unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC) }

// FsSet is fsconfig(2) with FSCONFIG_SET_STRING.
func FsSet(fd int, key, value string) error { return unix.FsconfigSetString(fd, key, value) }

// FsCreate is fsconfig(2) with FSCONFIG_CMD_CREATE.
func FsCreate(fd int) error { return unix.FsconfigCreate(fd) }

// FsMount is fsmount(2): a mount that is attached nowhere and goes with the
// last descriptor inside it.
func FsMount(fd int) (mount int, err error) { return unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0) }

// LoopFree is the LOOP_CTL_GET_FREE ioctl of /dev/loop-control: the name of a
// loop device that nobody uses yet. Somebody else may be told the same.
func LoopFree(control int) (device string, err error) {
	n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return "", err
	}
	return "/dev/loop" + strconv.Itoa(n), nil
}

// LoopConfigure is the LOOP_CONFIGURE ioctl (Linux 5.8): the device shows the
// file until its last user is gone. EBUSY: it has a file already.
func LoopConfigure(device, file int) error {
	c := unix.LoopConfig{Fd: uint32(file)}
	c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(device), unix.LOOP_CONFIGURE, uintptr(unsafe.Pointer(&c)))
	if e != 0 {
		return e
	}
	return nil
}
