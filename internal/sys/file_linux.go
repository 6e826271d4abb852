package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Pread is pread(2). EINTR is the caller's: a signal ends a job.
func Pread(fd int, p unsafe.Pointer, n int, off int64) (int, error) {
	return moved(unix.Pread(fd, unsafe.Slice((*byte)(p), n), off))
}

// Pwrite is pwrite(2). EINTR is the caller's.
func Pwrite(fd int, p unsafe.Pointer, n int, off int64) (int, error) {
	return moved(unix.Pwrite(fd, unsafe.Slice((*byte)(p), n), off))
}

// Preadv is preadv(2) with one buffer.
func Preadv(fd int, p unsafe.Pointer, n int, off int64) (int, error) {
	return moved(unix.Preadv(fd, [][]byte{unsafe.Slice((*byte)(p), n)}, off))
}

// Pwritev is pwritev(2) with one buffer.
func Pwritev(fd int, p unsafe.Pointer, n int, off int64) (int, error) {
	return moved(unix.Pwritev(fd, [][]byte{unsafe.Slice((*byte)(p), n)}, off))
}

// moved is what a call returned: a call that failed has moved nothing.
func moved(n int, err error) (int, error) { return max(n, 0), err }

// Readn is read(2) of n bytes to p; a blocking descriptor blocks the thread.
func Readn(fd int, p unsafe.Pointer, n int) (int, error) {
	r, _, e := unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(p), uintptr(n))
	if e != 0 {
		return 0, errno(e)
	}
	return int(r), nil
}

// Fsync, Fdatasync and Ftruncate are the system calls of these names.
func Fsync(fd int) error                   { return unix.Fsync(fd) }
func Fdatasync(fd int) error               { return unix.Fdatasync(fd) }
func Ftruncate(fd int, length int64) error { return unix.Ftruncate(fd, length) }

// Fallocate is fallocate(2); keep leaves the file's size alone.
func Fallocate(fd int, keep bool, off, n int64) error {
	var mode uint32
	if keep {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	return unix.Fallocate(fd, mode, off, n)
}

// PunchHole frees a range of a file, which then reads as zeros.
func PunchHole(fd int, off, n int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// DiscardBlocks is the BLKDISCARD ioctl of a block device.
func DiscardBlocks(fd int, off, n uint64) error {
	r := [2]uint64{off, n}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKDISCARD, uintptr(unsafe.Pointer(&r)))
	if e != 0 {
		return e
	}
	return nil
}

// BlockDeviceSize is the BLKGETSIZE64 ioctl.
func BlockDeviceSize(fd int) (uint64, error) {
	var n uint64
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&n)))
	if e != 0 {
		return 0, e
	}
	return n, nil
}

// The advice of Fadvise and Madvise.
const (
	AdviseNormal     = unix.FADV_NORMAL
	AdviseRandom     = unix.FADV_RANDOM
	AdviseSequential = unix.FADV_SEQUENTIAL
	AdviseDontNeed   = unix.FADV_DONTNEED
	AdviseNoReuse    = unix.FADV_NOREUSE
)

// Fadvise is posix_fadvise(2).
func Fadvise(fd int, off, n int64, advice int) error { return unix.Fadvise(fd, off, n, advice) }

// Madvise is madvise(2).
func Madvise(b []byte, advice int) error { return unix.Madvise(b, advice) }

// MapFile maps a file's region, shared.
func MapFile(fd int, off int64, n int, writable bool) ([]byte, error) {
	prot := unix.PROT_READ
	if writable {
		prot |= unix.PROT_WRITE
	}
	return unix.Mmap(fd, off, n, prot, unix.MAP_SHARED)
}

// MapMemory returns zeroed pages; huge asks for huge ones.
func MapMemory(n int, shared, huge bool) ([]byte, error) {
	flags := unix.MAP_ANON
	if shared {
		flags |= unix.MAP_SHARED
	} else {
		flags |= unix.MAP_PRIVATE
	}
	if huge {
		flags |= unix.MAP_HUGETLB
	}
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, flags)
}

// LockedMemory returns pages that stay in memory until they are unmapped
// (mlock(2)): EPERM or ENOMEM beyond RLIMIT_MEMLOCK without CAP_IPC_LOCK.
func LockedMemory(n int) ([]byte, error) {
	m, err := MapMemory(n, false, false)
	if err != nil {
		return nil, err
	}
	if err := unix.Mlock(m); err != nil {
		_ = unix.Munmap(m)
		return nil, err
	}
	return m, nil
}

// Unmap is munmap(2).
func Unmap(b []byte) error { return unix.Munmap(b) }

// Msync writes mapped pages back and waits.
func Msync(b []byte) error { return unix.Msync(b, unix.MS_SYNC) }

// CloneFile makes dst share all blocks of src (FICLONE). EOPNOTSUPP, EXDEV,
// EINVAL: they can't share.
func CloneFile(dst, src int) error { return unix.IoctlFileClone(dst, src) }

// OpenDirect is O_DIRECT.
const OpenDirect = unix.O_DIRECT

// OpenTemp opens a file without a name in dir (O_TMPFILE, Linux 3.11).
func OpenTemp(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir+"/(unnamed)"), nil
}
