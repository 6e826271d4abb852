// Package splice moves page references from socket to socket through a pipe.
//
// splice(2) into a pipe answers EAGAIN both when the source is empty and when
// the pipe has no free slot. A Mover never reads while its pipe holds
// anything, and an empty pipe always has a slot: so here EAGAIN is about the
// source. It can still be wrong about it: data before an urgent mark, or in a
// socket that somebody put into a sockmap, is seen by recv(2) alone. The
// caller asks recv before it believes in an empty or ended source.
package splice

import (
	"syscall"

	"github.com/spliced-io/spliced/internal/engine/flow"
	"github.com/spliced-io/spliced/internal/pipe"
	"github.com/spliced-io/spliced/internal/sys"
)

// A Mover splices one direction. The zero value is ready and holds nothing.
type Mover struct {
	pipe *pipe.Pipe // lent while there are bytes on the way, or nil
}

// Step delivers what the pipe holds; or, when it holds nothing, fills it once,
// with at most max bytes, and delivers that.
func (m *Mover) Step(pool *pipe.Pool, src, dst, max int) flow.Step {
	if m.Held() > 0 {
		return m.flush(pool, dst)
	}
	if m.pipe == nil {
		if m.pipe = pool.Get(); m.pipe == nil {
			return flow.Step{Status: flow.NoPipe}
		}
	}
	// Not more than the pipe's size, although a slot can hold more than a page:
	// back-pressure promises one pipe.
	n, err := sys.Splice(src, m.pipe.W, min(max, m.pipe.Size))
	if n == 0 || err != nil {
		m.release(pool)
		switch err {
		case nil:
			return flow.Step{Status: flow.SourceEnd}
		case syscall.EAGAIN:
			return flow.Step{Status: flow.SourceEmpty}
		case syscall.EINVAL, syscall.ENOSYS, syscall.EPERM:
			return flow.Step{Status: flow.Refused, Err: err}
		}
		return flow.Step{Status: flow.SourceFailed, Err: err}
	}
	m.pipe.Held = n
	s := m.flush(pool, dst)
	s.In = n
	return s
}

// Held returns the number of bytes in the pipe.
func (m *Mover) Held() int {
	if m.pipe == nil {
		return 0
	}
	return m.pipe.Held
}

// Reclaim returns the bytes in the pipe, and gives the pipe back.
func (m *Mover) Reclaim(pool *pipe.Pool) ([]byte, error) {
	if m.pipe == nil {
		return nil, nil
	}
	b, err := m.pipe.Drain()
	m.release(pool)
	return b, err
}

// flush splices until the pipe is empty or the drain says EAGAIN: only then is
// an edge of EPOLLOUT sure to come.
func (m *Mover) flush(pool *pipe.Pool, dst int) (s flow.Step) {
	for m.pipe.Held > 0 {
		n, err := sys.Splice(m.pipe.R, dst, m.pipe.Held)
		if err == syscall.EAGAIN {
			s.Status = flow.DrainFull
			return s
		}
		if err == syscall.EINVAL || err == syscall.ENOSYS {
			s.Status, s.Err = flow.Refused, err
			return s
		}
		if err == nil && n == 0 {
			err = syscall.EIO // the account of the pipe is wrong: never spin on it
		}
		if err != nil {
			s.Status, s.Err = flow.DrainFailed, err
			return s
		}
		s.Out += n
		m.pipe.Held -= n
	}
	return s
}

func (m *Mover) release(pool *pipe.Pool) {
	pool.Put(m.pipe)
	m.pipe = nil
}
