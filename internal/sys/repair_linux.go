package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// NoQueue is what [SetRepairQueue] leaves behind when a socket is done.
const NoQueue = 0 // TCP_NO_QUEUE

// SetQueueSeq sets rcv_nxt or write_seq of a socket in repair mode that is not
// connected yet (TCP_QUEUE_SEQ), as SetRepairQueue has said.
func SetQueueSeq(fd int, seq uint32) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(int32(seq)))
}

// SetTimestamp sets the clock of the timestamps that a socket in repair mode
// sends. Since Linux 6.7 an odd value means microseconds.
func SetTimestamp(fd int, v uint32) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, int(int32(v&^1)))
}

// RepairOptions are what both sides have agreed on when they connected.
type RepairOptions struct {
	MSS                     int // as the peer announced it
	SendScale, ReceiveScale uint8
	Scaled                  bool
	SACK, Timestamps        bool
}

// The codes of TCP_REPAIR_OPTIONS: the kinds of TCP's options.
const (
	optionMSS        = 2
	optionWindow     = 3
	optionSACK       = 4
	optionTimestamps = 8
)

// SetRepairOptions is TCP_REPAIR_OPTIONS, for a connected socket in repair mode.
func SetRepairOptions(fd int, o RepairOptions) error {
	list := [][2]uint32{{optionMSS, uint32(o.MSS)}}
	if o.Scaled {
		list = append(list, [2]uint32{optionWindow, uint32(o.SendScale) | uint32(o.ReceiveScale)<<16})
	}
	if o.SACK {
		list = append(list, [2]uint32{optionSACK, 0})
	}
	if o.Timestamps {
		list = append(list, [2]uint32{optionTimestamps, 0})
	}
	return setsockopt(fd, unix.TCP_REPAIR_OPTIONS, unsafe.Pointer(unsafe.SliceData(list)), uintptr(len(list))*8)
}

// A RepairWindow is struct tcp_repair_window.
type RepairWindow struct {
	SendLast    uint32 // snd_wl1: the segment that Send comes from
	Send        uint32 // snd_wnd
	Most        uint32 // max_window: the largest that Send ever was
	Receive     uint32 // rcv_wnd
	ReceiveFrom uint32 // rcv_wup: where Receive begins
}

// ReadRepairWindow is getsockopt(TCP_REPAIR_WINDOW).
func ReadRepairWindow(fd int) (w RepairWindow, err error) {
	n := uint32(unsafe.Sizeof(w))
	err = getsockopt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, unsafe.Pointer(&w), &n)
	return w, err
}

// SetRepairWindow is setsockopt(TCP_REPAIR_WINDOW).
func SetRepairWindow(fd int, w RepairWindow) error {
	return setsockopt(fd, unix.TCP_REPAIR_WINDOW, unsafe.Pointer(&w), unsafe.Sizeof(w))
}

func setsockopt(fd, name int, value unsafe.Pointer, size uintptr) error {
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, uintptr(name), uintptr(value), size, 0)
	if e != 0 {
		return e
	}
	return nil
}
