package sys

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The opcodes of a ring that this package offers (linux/io_uring.h).
const (
	UringNop   = 0
	UringFsync = 3
	UringRead  = 22
	UringWrite = 23

	UringFsyncData = 1 // Sqe.OpFlags: fdatasync
)

// Sqe is struct io_uring_sqe.
type Sqe struct {
	Opcode   uint8
	Flags    uint8
	Ioprio   uint16
	Fd       int32
	Off      uint64
	Addr     uint64
	Len      uint32
	OpFlags  uint32
	UserData uint64
	_        [3]uint64
}

// Cqe is struct io_uring_cqe.
type Cqe struct {
	UserData uint64
	Res      int32
	Flags    uint32
}

type uringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFd uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		_                                                           uint64
	}
	cq struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		_                                                           uint64
	}
}

// A Uring is an io_uring (Linux 5.6 for the opcodes above). It belongs to one
// goroutine.
type Uring struct {
	fd                   int
	sqRing, cqRing, sqes []byte
	sqHead, sqTail       *uint32
	cqHead, cqTail       *uint32
	sqMask, cqMask       uint32
	entries              []Sqe
	array                []uint32
	done                 []Cqe
	pending              uint32
}

// NewUring returns a ring for depth entries. EPERM, ENOSYS: io_uring is
// disabled here (kernel.io_uring_disabled, a container's seccomp rule).
func NewUring(depth int) (*Uring, error) {
	var p uringParams
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(depth), uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, e
	}
	u := &Uring{fd: int(fd)}
	if err := u.mapRings(&p); err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

func (u *Uring) mapRings(p *uringParams) (err error) {
	const sqOff, cqOff, sqesOff = 0, 0x8000000, 0x10000000
	shared := func(off int64, n uint32) ([]byte, error) {
		return unix.Mmap(u.fd, off, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	}
	if u.sqRing, err = shared(sqOff, p.sq.array+p.sqEntries*4); err != nil {
		return err
	}
	if u.cqRing, err = shared(cqOff, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(Cqe{}))); err != nil {
		return err
	}
	if u.sqes, err = shared(sqesOff, p.sqEntries*uint32(unsafe.Sizeof(Sqe{}))); err != nil {
		return err
	}
	word := func(ring []byte, off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&ring[off])) }
	u.sqHead, u.sqTail = word(u.sqRing, p.sq.head), word(u.sqRing, p.sq.tail)
	u.cqHead, u.cqTail = word(u.cqRing, p.cq.head), word(u.cqRing, p.cq.tail)
	u.sqMask, u.cqMask = *word(u.sqRing, p.sq.ringMask), *word(u.cqRing, p.cq.ringMask)
	u.array = unsafe.Slice(word(u.sqRing, p.sq.array), p.sqEntries)
	u.entries = unsafe.Slice((*Sqe)(unsafe.Pointer(&u.sqes[0])), p.sqEntries)
	u.done = unsafe.Slice((*Cqe)(unsafe.Pointer(&u.cqRing[p.cq.cqes])), p.cqEntries)
	return nil
}

// Push queues an entry for the next Enter. It is false when the ring is full.
func (u *Uring) Push(s Sqe) bool {
	tail := *u.sqTail
	if tail-atomic.LoadUint32(u.sqHead) >= uint32(len(u.entries)) {
		return false
	}
	i := tail & u.sqMask
	u.entries[i] = s
	u.array[i] = i
	atomic.StoreUint32(u.sqTail, tail+1)
	u.pending++
	return true
}

// Enter submits what was pushed and waits for at least wait completions.
func (u *Uring) Enter(wait int) error {
	const getEvents = 1
	var flags uintptr
	if wait > 0 {
		flags = getEvents
	}
	n, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), uintptr(u.pending), uintptr(wait), flags, 0, 0)
	if e != 0 {
		return errno(e)
	}
	u.pending -= uint32(n)
	return nil
}

// Pending returns how many entries were pushed and not submitted.
func (u *Uring) Pending() int { return int(u.pending) }

// Reap takes one completion, if there is one.
func (u *Uring) Reap() (Cqe, bool) {
	head := *u.cqHead
	if head == atomic.LoadUint32(u.cqTail) {
		return Cqe{}, false
	}
	c := u.done[head&u.cqMask]
	atomic.StoreUint32(u.cqHead, head+1)
	return c, true
}

// Ready returns how many completions wait to be reaped.
func (u *Uring) Ready() int { return int(atomic.LoadUint32(u.cqTail) - *u.cqHead) }

// Close frees the ring. Nothing may be on the way that uses memory which the
// caller frees afterwards.
func (u *Uring) Close() {
	for _, m := range [][]byte{u.sqRing, u.cqRing, u.sqes} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	_ = unix.Close(u.fd)
}
