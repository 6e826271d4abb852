package splice

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/spliced-io/spliced/internal/sys"
)

// A pace is how many bytes the next sendfile(2) is asked for. A call ends
// earlier when the socket's buffer is full, but where the peer is faster than the
// file it never is, and a deadline waits for the whole of the call: not for
// long, however slow the file's disk. Short calls are no answer, since each that
// takes longer than a few microseconds costs wake-ups of Go's monitor and of a
// thread.
type pace int64

const (
	leastChunk pace = 256 << 10
	firstChunk pace = 1 << 20
	mostChunk  pace = 64 << 20

	longCall = 50 * time.Millisecond
)

// next is the pace after a call that took so long; whole: that moved all it was
// asked for.
func (p pace) next(took time.Duration, whole bool) pace {
	switch {
	case took > longCall:
		return max(p/2, leastChunk)
	case whole && took < longCall/2:
		return min(2*p, mostChunk)
	}
	return p
}

// identify finds out how the connection can be sent to.
func (s *sending) identify() error {
	var c syscall.Conn
	switch conn := s.conn.(type) {
	case *net.TCPConn:
		c = conn
	case *net.UnixConn:
		c = conn
	default:
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var flags int
	var inner error
	if err := raw.Control(func(fd uintptr) { flags, inner = sys.FileFlags(int(fd)) }); err != nil {
		return err
	}
	if inner == nil && flags&syscall.O_NONBLOCK == 0 {
		s.out = patient{raw} // Go's own writes would hold a thread in write(2)
		return nil
	}
	s.socket = raw
	return inner
}

// patient writes to a socket in blocking mode without blocking: Go's poller,
// and so the deadline, knows the socket all the same.
type patient struct{ raw syscall.RawConn }

func (p patient) Write(b []byte) (done int, err error) {
	for done < len(b) && err == nil {
		var n int
		outer := p.raw.Write(func(fd uintptr) bool {
			n, err = sys.Send(int(fd), b[done:])
			return err != syscall.EAGAIN
		})
		if done += max(n, 0); outer != nil {
			return done, outer
		}
	}
	return done, err
}

// cork makes a TCP socket keep partial segments back until undo: headers, body
// and trailers fill them together.
func (s *sending) cork() (undo func() error, err error) {
	none := func() error { return nil }
	tcp, ok := s.conn.(*net.TCPConn)
	if !ok {
		return none, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return none, err
	}
	set := func(on bool) error {
		var inner error
		if err := raw.Control(func(fd uintptr) { inner = sys.SetCork(int(fd), on) }); err != nil {
			return err
		}
		return inner
	}
	if err := set(true); err != nil {
		return none, err
	}
	return func() error {
		if err := set(false); err != syscall.EINVAL {
			return err
		}
		return nil
	}, nil
}

// inKernel sends by sendfile(2). Not done: the kernel has refused, and what is
// left has to be copied.
func (s *sending) inKernel() (done bool, side string, err error) {
	if s.socket == nil {
		return false, "", nil
	}
	from, err := s.file.SyscallConn()
	if err != nil {
		return true, "source", err
	}
	chunk := firstChunk
	for s.left > 0 || s.unsized {
		n, took, err := s.call(from, s.socket, int64(chunk))
		chunk = chunk.next(took, n >= int(chunk))
		switch {
		case err == syscall.EINVAL || err == syscall.EOPNOTSUPP || err == syscall.ENOSYS || err == syscall.EOVERFLOW:
			return false, "", nil
		case err != nil:
			return true, blameSend(err), err
		case n == 0:
			return true, "source", s.ended()
		}
		s.moved(n)
	}
	return true, "", nil
}

// call is one sendfile(2), after those that found the socket full, and how long
// it took.
func (s *sending) call(from, to syscall.RawConn, want int64) (n int, took time.Duration, err error) {
	if !s.unsized {
		want = min(want, s.left)
	}
	outer := to.Write(func(dst uintptr) bool {
		off := s.off
		begin := time.Now()
		closed := from.Control(func(src uintptr) { n, err = sys.SendfileAt(int(dst), int(src), &off, int(want)) })
		took = time.Since(begin)
		if closed != nil {
			err = os.ErrClosed // Control has no other reason
		}
		return err != syscall.EAGAIN
	})
	if outer != nil {
		return 0, took, outer
	}
	return n, took, err
}

func blameSend(err error) string {
	if err == syscall.EIO || err == syscall.EBADF || err == syscall.ESPIPE || err == os.ErrClosed {
		return "source"
	}
	return "target"
}

// read reads at the offset, also what direct I/O refuses.
func (s *sending) read(p []byte) (int, error) {
	n, err := s.file.ReadAt(p, s.off)
	if n == 0 && errors.Is(err, syscall.EINVAL) {
		return s.readBlocks(p)
	}
	return n, err
}

// readBlocks reads the whole blocks around what is wanted, into memory aligned
// to them, as a file with O_DIRECT asks for (open(2), NOTES).
func (s *sending) readBlocks(p []byte) (n int, err error) {
	const block = 4096 // no file system wants more
	ahead := int(s.off % block)
	size := (ahead + len(p) + block - 1) / block * block
	buf := make([]byte, size+block)
	buf = buf[(block-int(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))%block))%block:][:size]
	raw, err := s.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	closed := raw.Control(func(fd uintptr) { n, err = syscall.Pread(int(fd), buf, s.off-int64(ahead)) })
	if closed != nil {
		return 0, os.ErrClosed
	}
	if err != nil {
		return 0, &os.PathError{Op: "read", Path: s.file.Name(), Err: err}
	}
	if n = copy(p, buf[min(ahead, n):n]); n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}
