package sys

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Iocb is struct iocb of linux/aio_abi.h.
type Iocb struct {
	Data   uint64
	Key    uint32
	Flags  uint32
	Opcode uint16
	Prio   int16
	Fd     uint32
	Buf    uint64
	Bytes  uint64
	Offset int64
	_      uint64
	IFlags uint32
	ResFd  uint32
}

// IoEvent is struct io_event of linux/aio_abi.h.
type IoEvent struct {
	Data uint64
	Obj  uint64
	Res  int64
	Res2 int64
}

// The opcodes of an Iocb.
const (
	AioPread  = 0
	AioPwrite = 1
	AioFsync  = 2
	AioFdsync = 3
)

// AioSetup is io_setup(2).
func AioSetup(depth int) (ctx uintptr, err error) {
	_, _, e := unix.Syscall(unix.SYS_IO_SETUP, uintptr(depth), uintptr(unsafe.Pointer(&ctx)), 0)
	if e != 0 {
		return 0, e
	}
	return ctx, nil
}

// AioDestroy is io_destroy(2): it waits for what is on the way.
func AioDestroy(ctx uintptr) { _, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, ctx, 0, 0) }

// AioSubmit is io_submit(2). It returns how many of list were taken.
func AioSubmit(ctx uintptr, list []*Iocb) (int, error) {
	n, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, ctx, uintptr(len(list)), uintptr(unsafe.Pointer(unsafe.SliceData(list))))
	if e != 0 {
		return 0, errno(e)
	}
	return int(n), nil
}

// AioEvents is io_getevents(2); a negative timeout waits for ever.
func AioEvents(ctx uintptr, least int, events []IoEvent, timeout time.Duration) (int, error) {
	var ts *unix.Timespec
	if timeout >= 0 {
		t := unix.NsecToTimespec(int64(timeout))
		ts = &t
	}
	n, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, ctx, uintptr(least), uintptr(len(events)),
		uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(unsafe.Pointer(ts)), 0)
	if e != 0 {
		return 0, errno(e)
	}
	return int(n), nil
}
