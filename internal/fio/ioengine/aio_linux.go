package ioengine

import (
	"fmt"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// aioEngine is Linux's native asynchronous I/O, which is asynchronous with
// direct=1 only.
type aioEngine struct {
	fileCalls
	ctx    uintptr
	cbs    []sys.Iocb
	units  []*Unit
	queued []*sys.Iocb
	events []sys.IoEvent
	ready  []*Unit // done without the kernel
	out    int
}

func newAIO(c Config) (Engine, error) {
	ctx, err := sys.AioSetup(c.Depth)
	if err != nil {
		return nil, fmt.Errorf("ioengine=libaio: io_setup: %w", err)
	}
	return &aioEngine{
		ctx: ctx, cbs: make([]sys.Iocb, c.Depth), units: make([]*Unit, c.Depth),
		queued: make([]*sys.Iocb, 0, c.Depth), events: make([]sys.IoEvent, c.Depth),
	}, nil
}

func (e *aioEngine) Queue(u *Unit) bool {
	cb := &e.cbs[u.Index]
	*cb = sys.Iocb{Data: uint64(u.Index), Fd: uint32(u.File.FD), Offset: u.Offset}
	switch u.Dir {
	case Read, Write:
		cb.Opcode = sys.AioPread
		if u.Dir == Write {
			cb.Opcode = sys.AioPwrite
		}
		cb.Buf, cb.Bytes = uint64(uintptr(u.ptr())), uint64(u.Len)
	default:
		e.other(u) // not every file system has asynchronous fsync
		e.ready = append(e.ready, u)
		return true
	}
	e.units[u.Index] = u
	e.queued = append(e.queued, cb)
	return true
}

func (e *aioEngine) Commit() error {
	for len(e.queued) > 0 {
		n, err := sys.AioSubmit(e.ctx, e.queued)
		if err == syscall.EAGAIN && e.out > 0 {
			return nil // room comes with completions
		}
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("io_submit: %w", err)
		}
		e.out += n
		e.queued = append(e.queued[:0], e.queued[n:]...)
	}
	return nil
}

func (e *aioEngine) Wait(least, most int, done []*Unit) ([]*Unit, error) {
	n := min(len(e.ready), most)
	done = append(done, e.ready[:n]...)
	e.ready = append(e.ready[:0], e.ready[n:]...)
	least, most = least-n, most-n
	if err := e.Commit(); err != nil {
		return done, err
	}
	if e.out == 0 || most == 0 {
		return done, nil
	}
	timeout := time.Duration(-1)
	if least <= 0 {
		least, timeout = 0, 0
	}
	for {
		n, err := sys.AioEvents(e.ctx, min(least, e.out), e.events[:min(most, len(e.events))], timeout)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return done, fmt.Errorf("io_getevents: %w", err)
		}
		for _, ev := range e.events[:n] {
			u := e.units[ev.Data]
			if ev.Res < 0 {
				u.Err = syscall.Errno(-ev.Res)
			} else {
				u.N = int(ev.Res)
			}
			done = append(done, u)
		}
		e.out -= n
		return done, nil
	}
}

func (e *aioEngine) Do(u *Unit) { doOne(e, u) }
func (e *aioEngine) Shutdown()  { sys.AioDestroy(e.ctx) }
