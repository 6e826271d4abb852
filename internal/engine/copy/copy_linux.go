// Package copy moves bytes by reading and writing. A buffer is borrowed only
// while there are bytes.
package copy

import (
	"syscall"

	"github.com/spliced-io/spliced/internal/engine/flow"
	"github.com/spliced-io/spliced/internal/sys"
)

// Size of a buffer, in bytes. Measured: docs/engines.md.
const Size = 128 << 10

type buffer struct {
	next     *buffer // in the free list
	off, end int     // data[off:end] waits for the drain
	data     [Size]byte
}

// Buffers lends buffers to the sessions of one event loop. The zero value is
// ready. It is not safe for concurrent use.
type Buffers struct {
	free  *buffer
	spare int
}

// spareBuffers are kept for the next reader; more than that is left to the
// garbage collector.
const spareBuffers = 4

func (b *Buffers) get() *buffer {
	buf := b.free
	if buf == nil {
		return new(buffer)
	}
	b.free, buf.next = buf.next, nil
	b.spare--
	return buf
}

func (b *Buffers) put(buf *buffer) {
	if b.spare < spareBuffers {
		buf.next, b.free = b.free, buf
		b.spare++
	}
}

// A Mover copies one direction. The zero value is ready and holds nothing.
type Mover struct {
	held *buffer // bytes the drain has not taken yet, or nil
}

// Step writes what is held; or, when nothing is, reads once, at most max
// bytes, and writes that.
func (m *Mover) Step(bufs *Buffers, src, dst, max int) flow.Step {
	if m.held != nil {
		return m.flush(bufs, dst)
	}
	buf := bufs.get()
	want := min(max, Size)
	n, err := sys.Recv(src, buf.data[:want])
	if n == 0 || err != nil {
		bufs.put(buf)
		switch err {
		case nil:
			return flow.Step{Status: flow.SourceEnd}
		case syscall.EAGAIN:
			return flow.Step{Status: flow.SourceEmpty}
		}
		return flow.Step{Status: flow.SourceFailed, Err: err}
	}
	buf.off, buf.end = 0, n
	m.held = buf
	s := m.flush(bufs, dst)
	s.In = n
	if s.Status == flow.More && n < want {
		s.Status = flow.SourceShort
	}
	return s
}

// Held returns the number of bytes that have left the source and are not with
// the drain.
func (m *Mover) Held() int {
	if m.held == nil {
		return 0
	}
	return m.held.end - m.held.off
}

// Reclaim returns the bytes that are held, and forgets them.
func (m *Mover) Reclaim(bufs *Buffers) []byte {
	if m.held == nil {
		return nil
	}
	b := append([]byte(nil), m.held.data[m.held.off:m.held.end]...)
	bufs.put(m.held)
	m.held = nil
	return b
}

// flush writes until the buffer is empty or the drain says EAGAIN: only then
// is an edge of EPOLLOUT sure to come.
func (m *Mover) flush(bufs *Buffers, dst int) (s flow.Step) {
	buf := m.held
	for buf.off < buf.end {
		n, err := sys.Send(dst, buf.data[buf.off:buf.end])
		if err == syscall.EAGAIN {
			s.Status = flow.DrainFull
			return s
		}
		if err != nil {
			s.Status, s.Err = flow.DrainFailed, err
			return s
		}
		s.Out += n
		buf.off += n
	}
	bufs.put(buf)
	m.held = nil
	return s
}
