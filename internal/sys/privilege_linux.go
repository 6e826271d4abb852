package sys

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of this file are made by every thread of the process, and by those
// to come, unless they say otherwise: their subject belongs to a thread, and a program in Go does not know
// its threads. With cgo, ENOTSUP: the runtime does not know them all either.

// SetCapabilities is capset(2).
func SetCapabilities(c Capabilities) error {
	header, data := c.written()
	err := allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0)
	runtime.KeepAlive(&header)
	runtime.KeepAlive(&data)
	return err
}

// SetThreadCapabilities is capset(2) of the calling thread alone.
func SetThreadCapabilities(c Capabilities) error {
	header, data := c.written()
	return unix.Capset(&header, &data[0])
}

func (c Capabilities) written() (unix.CapUserHeader, [2]unix.CapUserData) {
	return unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{
		{Effective: uint32(c.Effective), Permitted: uint32(c.Permitted), Inheritable: uint32(c.Inheritable)},
		{Effective: uint32(c.Effective >> 32), Permitted: uint32(c.Permitted >> 32), Inheritable: uint32(c.Inheritable >> 32)},
	}
}

// Access says whether the calling thread may access a file, with its effective user and
// capabilities (faccessat2(2), Linux 5.8; ENOSYS before). mode has R_OK, W_OK and X_OK.
func Access(path string, mode uint32) error {
	return unix.Faccessat2(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)
}

// DropBounding takes a capability out of the bounding set
// (prctl(PR_CAPBSET_DROP)): no program that is executed gets it any more. It
// needs CAP_SETPCAP. EINVAL: the kernel does not know the capability.
func DropBounding(capability int) error {
	return allThreads(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(capability), 0)
}

// ClearAmbient empties the ambient set (prctl(PR_CAP_AMBIENT)).
func ClearAmbient() error {
	return allThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0)
}

// SetNoNewPrivileges has execve(2) grant no privileges ever after
// (prctl(PR_SET_NO_NEW_PRIVS)).
func SetNoNewPrivileges() error { return allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0) }

// KeepCapabilities has a change of the user keep the permitted capabilities
// (prctl(PR_SET_KEEPCAPS)).
func KeepCapabilities(on bool) error {
	v := uintptr(0)
	if on {
		v = 1
	}
	return allThreads(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, v, 0)
}

// SetUser becomes another user, with that group alone.
func SetUser(uid, gid int) error {
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return err
	}
	if err := syscall.Setresgid(gid, gid, gid); err != nil {
		return err
	}
	return syscall.Setresuid(uid, uid, uid)
}

func allThreads(call, a1, a2, a3 uintptr) error {
	// The runtime panics if a thread's answer differs from the first one's.
	if _, _, e := syscall.AllThreadsSyscall6(call, a1, a2, a3, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// LandlockVersion is which version of landlock(7) the kernel has. ENOSYS or
// EOPNOTSUPP: none.
func LandlockVersion() (int, error) {
	v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0, e
	}
	return int(v), nil
}

// OpenPath opens a file or directory to name it, with O_PATH: it takes no right to read it.
func OpenPath(path string) (fd int, isDir bool, err error) {
	if fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return -1, false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, false, err
	}
	return fd, st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// LandlockRuleset makes a set of rules about those accesses to files.
func LandlockRuleset(files uint64) (int, error) {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: files}
	// Versions 1 to 3 know the first field only.
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

// LandlockAllow lets a set grant accesses to what is at dir, an O_PATH
// descriptor, and below it; to a file those only that files have.
func LandlockAllow(ruleset, dir int, files uint64) error {
	attr := unix.LandlockPathBeneathAttr{Allowed_access: files, Parent_fd: int32(dir)}
	_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// LandlockRestrict puts the process under a set of rules, for good. It needs
// [SetNoNewPrivileges] before.
func LandlockRestrict(ruleset int) error {
	return allThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0)
}
