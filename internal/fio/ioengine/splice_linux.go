package ioengine

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// A conduit is a pipe through which an engine moves bytes. It is empty
// between calls, or broken and replaced: bytes of one block never reach the
// next one.
type conduit struct {
	r, w, size int
	stop       *atomic.Bool
	noUser     bool // vmsplice to user space does not work: read(2) does
}

const (
	leastPipe = 64 << 10
	mostPipe  = 1 << 20 // fs.pipe-max-size for unprivileged users
)

func newConduit(block int, stop *atomic.Bool) (*conduit, error) {
	c := &conduit{stop: stop}
	return c, c.open(block)
}

func (c *conduit) open(block int) (err error) {
	if c.r, c.w, err = sys.Pipe(); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	if want := min(max(block, leastPipe), mostPipe); want > leastPipe {
		_, _ = sys.SetPipeSize(c.w, want) // EPERM: the allowance is used up, smaller steps then
	}
	if c.size, err = sys.PipeSize(c.w); err != nil {
		c.close()
	}
	return err
}

func (c *conduit) close() {
	_ = sys.Close(c.r)
	_ = sys.Close(c.w)
}

// reset throws away what a failed transfer left inside.
func (c *conduit) reset() error {
	size := c.size
	c.close()
	return c.open(size)
}

// toUser moves n bytes from the pipe to the unit's buffer: by vmsplice, which
// copies on every kernel there is (the first fallback of fio's engine, mapping
// the pages, never reached a released one), or by read(2).
func (c *conduit) toUser(u *Unit, at, n int) error {
	for n > 0 {
		p := u.Buf[at : at+n]
		var m int
		var err error
		if !c.noUser {
			m, err = sys.VmspliceAt(c.r, ptr(p), n, 0)
			if errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) {
				c.noUser = true
				continue
			}
		} else {
			m, err = sys.Readn(c.r, ptr(p), n)
		}
		if err != nil {
			return err
		}
		if m == 0 {
			return syscall.ENODATA
		}
		at, n = at+m, n-m
	}
	return nil
}

// fromUser passes pages of b to the pipe, as many as fit; the pages must not
// change until whoever takes them out is done with them.
func (c *conduit) fromUser(b []byte) (int, error) {
	return sys.VmspliceAt(c.w, ptr(b), len(b), sys.SpliceNonblock)
}

// wait waits until fd is ready, in steps, and gives up when the job is to end.
func (c *conduit) wait(ready func(fd, msec int) (bool, error), fd int) error {
	return waitReady(ready, fd, c.stop)
}

func waitReady(ready func(fd, msec int) (bool, error), fd int, stop *atomic.Bool) error {
	for {
		ok, err := ready(fd, int(tick.Milliseconds()))
		if ok || err != nil {
			return err
		}
		if stop.Load() {
			return syscall.EINTR
		}
	}
}

// spliceEngine reads file → pipe → memory and writes memory → pipe → file.
type spliceEngine struct {
	fileCalls
	pipe     *conduit
	evidence Evidence
}

func newSplice(c Config) (Engine, error) {
	p, err := newConduit(c.Block, c.Stop)
	if err != nil {
		return nil, err
	}
	return &spliceEngine{pipe: p, evidence: Evidence{
		Path: "file → pipe → memory, memory → pipe → file", PipeSize: p.size,
		ToUser: "copied (vmsplice)", Source: probeUserPages(),
	}}, nil
}

func (e *spliceEngine) Open(f *File) error {
	if e.evidence.Shared == "" {
		e.evidence.Shared = probeFilePages(f)
	}
	return nil
}

func (e *spliceEngine) Shutdown() { e.pipe.close() }

func (e *spliceEngine) Evidence() *Evidence {
	if e.pipe.noUser {
		e.evidence.ToUser = "copied (read)"
	}
	return &e.evidence
}

func (e *spliceEngine) Do(u *Unit) {
	switch u.Dir {
	case Read:
		e.read(u)
	case Write:
		e.write(u)
	default:
		e.other(u)
		return
	}
	if u.Err != nil && errors.Is(u.Err, syscall.EINVAL) {
		u.Err = fmt.Errorf("splice does not work on this file system: %w", u.Err)
	}
}

func (e *spliceEngine) read(u *Unit) {
	off := u.Offset
	for u.N < u.Len {
		n, err := sys.SpliceAt(u.File.FD, &off, e.pipe.w, nil, min(u.Len-u.N, e.pipe.size), sys.SpliceNonblock)
		if err == syscall.EAGAIN {
			// The pipe is empty, so it is the file that has nothing yet.
			if err = e.pipe.wait(sys.WaitReadable, u.File.FD); err == nil {
				continue
			}
		}
		if err != nil {
			u.Err = err
			return
		}
		if n == 0 {
			return // the end: what was read so far is the result
		}
		if err := e.pipe.toUser(u, u.At+u.N, n); err != nil {
			u.Err = errors.Join(err, e.pipe.reset())
			return
		}
		u.N += n
	}
}

func (e *spliceEngine) write(u *Unit) {
	off := u.Offset
	for u.N < u.Len {
		held, err := e.pipe.fromUser(u.Buf[u.At+u.N : u.At+u.Len])
		if err != nil {
			u.Err = fmt.Errorf("vmsplice: %w", err)
			return
		}
		for held > 0 {
			n, err := sys.SpliceAt(e.pipe.r, nil, u.File.FD, &off, held, 0)
			if err == nil && n == 0 {
				err = syscall.EIO // took nothing and says nothing
			}
			if err != nil {
				u.Err = err
				if r := e.pipe.reset(); r != nil {
					u.Err = r
				}
				return
			}
			held -= n
			u.N += n
		}
	}
}

// probeFilePages splices a page of an unnamed file in the same directory into
// a pipe, overwrites it in the file, and looks which of both the pipe has: the
// new bytes prove that the pipe refers to the file's own pages.
func probeFilePages(f *File) string {
	if f.Direct {
		return "copied (direct=1 reads into pages of its own)"
	}
	if f.Device {
		return "unknown: a device is not written to for a probe"
	}
	t, err := sys.OpenTemp(dirOf(f.Name))
	if err != nil {
		return "unknown: " + err.Error()
	}
	defer t.Close()
	return overwriteProbe(t)
}

func overwriteProbe(t *os.File) string {
	const page = 4096
	old, fresh := make([]byte, page), make([]byte, page)
	for i := range old {
		old[i], fresh[i] = 'o', 'n'
	}
	unknown := func(err error) string { return "unknown: " + err.Error() }
	if _, err := t.WriteAt(old, 0); err != nil {
		return unknown(err)
	}
	p, err := newConduit(page, new(atomic.Bool))
	if err != nil {
		return unknown(err)
	}
	defer p.close()
	var off int64
	n, err := sys.SpliceAt(int(t.Fd()), &off, p.w, nil, page, sys.SpliceNonblock)
	if err != nil || n == 0 {
		return unknown(fmt.Errorf("splice moved %d bytes: %w", n, err))
	}
	if _, err := t.WriteAt(fresh, 0); err != nil {
		return unknown(err)
	}
	return verdict(p, n)
}

// verdict reads the pipe and says whether what went in later is there.
func verdict(p *conduit, n int) string {
	got := make([]byte, n)
	if _, err := sys.Readn(p.r, ptr(got), n); err != nil {
		return "unknown: " + err.Error()
	}
	if got[0] == 'n' {
		return "shared"
	}
	return "copied"
}

// probeUserPages does the same for memory that vmsplice passes to a pipe.
func probeUserPages() string {
	m, err := sys.MapMemory(4096, false, false)
	if err != nil {
		return "unknown: " + err.Error()
	}
	defer sys.Unmap(m)
	p, err := newConduit(len(m), new(atomic.Bool))
	if err != nil {
		return "unknown: " + err.Error()
	}
	defer p.close()
	m[0] = 'o'
	if _, err := p.fromUser(m); err != nil {
		return "unknown: " + err.Error()
	}
	m[0] = 'n'
	return verdict(p, len(m))
}
