package sys

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The events of [EpollWait].
const (
	EpollIn    = unix.EPOLLIN
	EpollOut   = unix.EPOLLOUT
	EpollPri   = unix.EPOLLPRI
	EpollErr   = unix.EPOLLERR
	EpollHup   = unix.EPOLLHUP
	EpollRDHup = unix.EPOLLRDHUP

	// EpollGone are those of a peer that says nothing more.
	EpollGone = EpollRDHup | EpollHup | EpollErr
)

// EpollEvent is struct epoll_event; Fd and Pad are the caller's.
type EpollEvent = unix.EpollEvent

// EpollCreate is epoll_create1(2).
func EpollCreate() (int, error) { return unix.EpollCreate1(unix.EPOLL_CLOEXEC) }

// EpollAddEdge registers fd for every event, edge-triggered, or for all but output; a and b
// come back in the Fd and Pad of its events. Output makes an event at once if there is room.
func EpollAddEdge(ep, fd int, a, b int32, output bool) error {
	return edge(unix.EPOLL_CTL_ADD, ep, fd, a, b, output)
}

// EpollEdge has a registration of EpollAddEdge ring for output, or not. Asked for
// anew, output makes an event if there is room already.
func EpollEdge(ep, fd int, a, b int32, output bool) error {
	return edge(unix.EPOLL_CTL_MOD, ep, fd, a, b, output)
}

func edge(op, ep, fd int, a, b int32, output bool) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET, Fd: a, Pad: b}
	if output {
		ev.Events |= unix.EPOLLOUT
	}
	return unix.EpollCtl(ep, op, fd, &ev)
}

// EpollAddLevel registers fd for input, level-triggered.
func EpollAddLevel(ep, fd int, a, b int32) error {
	return unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: a, Pad: b})
}

// EpollAddListener registers a listening socket, level-triggered; of several
// epolls that have it, one is woken for a connection (EPOLLEXCLUSIVE, Linux
// 4.5).
func EpollAddListener(ep, fd int, a, b int32) error {
	return unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, Fd: a, Pad: b,
	})
}

// EpollDel takes fd out. It is needed where another descriptor keeps the open
// file alive; otherwise close(2) does it.
func EpollDel(ep, fd int) error { return unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, fd, nil) }

// EpollWait waits at most msec milliseconds, for ever if msec is negative.
func EpollWait(ep int, events []EpollEvent, msec int) (int, error) {
	for {
		n, err := unix.EpollWait(ep, events, msec)
		if err != unix.EINTR {
			return n, err
		}
		// A signal: what is left of the wait is not known, and the caller
		// computes it anew from its clock.
		if msec >= 0 {
			return 0, nil
		}
	}
}

// Yield is sched_yield(2): whoever waits for this processor has it first.
func Yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// Eventfd returns a non-blocking counter that wakes an epoll_wait.
func Eventfd() (int, error) { return unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC) }

// EventfdAdd wakes whoever waits for fd.
func EventfdAdd(fd int) error {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, err := unix.Write(fd, one[:])
	return err
}

// EventfdDrain resets the counter.
func EventfdDrain(fd int) {
	var b [8]byte
	_, _ = unix.Read(fd, b[:]) // EAGAIN: nobody has woken us since
}
