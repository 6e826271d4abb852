package ioengine

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// uringEngine uses a ring of its own.
type uringEngine struct {
	fileCalls
	ring  *sys.Uring
	slots []*Unit
	out   int
}

func newUring(c Config) (Engine, error) {
	r, err := sys.NewUring(c.Depth)
	if err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) {
			return nil, fmt.Errorf("ioengine=io_uring is disabled here (sysctl kernel.io_uring_disabled, or a container's seccomp rules); libaio or posixaio work: %w", err)
		}
		return nil, fmt.Errorf("ioengine=io_uring: %w", err)
	}
	return &uringEngine{ring: r, slots: make([]*Unit, c.Depth)}, nil
}

func (e *uringEngine) Queue(u *Unit) bool {
	s := sys.Sqe{Fd: int32(u.File.FD), Off: uint64(u.Offset), UserData: uint64(u.Index)}
	switch u.Dir {
	case Read, Write:
		s.Opcode = sys.UringRead
		if u.Dir == Write {
			s.Opcode = sys.UringWrite
		}
		s.Addr, s.Len = uint64(uintptr(u.ptr())), uint32(u.Len)
	case Fsync, Fdatasync:
		s.Opcode, s.Off = sys.UringFsync, 0
		if u.Dir == Fdatasync {
			s.OpFlags = sys.UringFsyncData
		}
	default:
		s.Opcode, s.Off = sys.UringNop, 0
		e.other(u)
	}
	if !e.ring.Push(s) {
		return false
	}
	e.slots[u.Index] = u
	e.out++
	return true
}

func (e *uringEngine) Commit() error {
	if e.ring.Pending() == 0 {
		return nil
	}
	return e.enter(0)
}

func (e *uringEngine) enter(wait int) error {
	for {
		err := e.ring.Enter(wait)
		if err == syscall.EINTR || err == syscall.EAGAIN {
			continue
		}
		return err
	}
}

func (e *uringEngine) Wait(least, most int, done []*Unit) ([]*Unit, error) {
	if least = min(least, e.out); e.ring.Ready() < least || e.ring.Pending() > 0 {
		if err := e.enter(least); err != nil {
			return done, fmt.Errorf("io_uring_enter: %w", err)
		}
	}
	for ; most > 0; most-- {
		c, ok := e.ring.Reap()
		if !ok {
			break
		}
		e.out--
		u := e.slots[c.UserData]
		switch {
		case u.Dir == Trim:
		case c.Res < 0:
			u.Err = syscall.Errno(-c.Res)
		case u.Dir > Trim:
			u.N = u.Len
		default:
			u.N = int(c.Res)
		}
		done = append(done, u)
	}
	return done, nil
}

func (e *uringEngine) Do(u *Unit) { doOne(e, u) }

func (e *uringEngine) Shutdown() {
	for e.out > 0 {
		if _, err := e.Wait(e.out, e.out, nil); err != nil {
			break
		}
	}
	e.ring.Close()
}

// doOne runs one unit on an engine with nothing on the way.
func doOne(e Async, u *Unit) {
	if !e.Queue(u) {
		u.Err = syscall.EAGAIN
		return
	}
	// From here on the unit may be a worker's.
	if err := e.Commit(); err != nil {
		u.Err = err
		return
	}
	var room [1]*Unit
	_, err := e.Wait(1, 1, room[:0])
	if err != nil {
		u.Err = err
	}
}
