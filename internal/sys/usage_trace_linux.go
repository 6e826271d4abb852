package sys

import (
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TracepointID returns the number by which perf_event_open(2) knows a
// tracepoint, such as "raw_syscalls/sys_enter". It needs CAP_SYS_ADMIN and
// Linux 5.2: tracefs is mounted for the caller alone, at no path.
func TracepointID(event string) (uint64, error) {
	fs, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return 0, err
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(mount)
	fd, err := unix.Openat(mount, "events/"+event+"/id", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	file := os.NewFile(uintptr(fd), event)
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// OpenCounter counts how often a thread, and what it starts from now on, hits a
// tracepoint (perf_event_open, CAP_PERFMON). [ReadCounter] reads it.
func OpenCounter(tracepoint uint64, tid int) (fd int, err error) {
	return openCounter(unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: tracepoint}, tid)
}

// OpenSwitchCounter counts the context switches of a thread, and of what it
// starts from now on.
func OpenSwitchCounter(tid int) (fd int, err error) {
	return openCounter(unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CONTEXT_SWITCHES}, tid)
}

func openCounter(attr unix.PerfEventAttr, tid int) (fd int, err error) {
	attr.Bits = unix.PerfBitInherit
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err = unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	runtime.KeepAlive(&attr)
	return fd, err
}

// ReadCounter returns the count so far.
func ReadCounter(fd int) (uint64, error) {
	var b [8]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return 0, err
	}
	if n != len(b) {
		return 0, io.ErrUnexpectedEOF
	}
	return binary.NativeEndian.Uint64(b[:]), nil
}
