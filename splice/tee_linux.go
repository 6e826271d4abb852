package splice

import (
	"errors"
	"io"
	"syscall"

	"github.com/spliced-io/spliced/internal/pipe"
	"github.com/spliced-io/spliced/internal/sys"
)

// inKernel moves references. Not done: src can't be spliced, nothing is lost,
// and the rest has to be copied.
func (t *tee) inKernel() (done bool, side string, err error) {
	src := rawOf(t.src)
	if src == nil {
		return false, "", nil
	}
	var pool pipe.Pool
	defer pool.Trim()
	pipes := [2]*pipe.Pipe{pool.Get(), pool.Get()}
	defer func() {
		for _, p := range pipes {
			if p != nil {
				pool.Put(p)
			}
		}
	}()
	if pipes[0] == nil || pipes[1] == nil {
		return false, "", nil
	}
	raws := [2]syscall.RawConn{rawOf(t.dst[0]), rawOf(t.dst[1])}
	for {
		n, err := fillPipe(src, pipes[0])
		switch {
		case err == syscall.EINVAL || err == syscall.EOPNOTSUPP || err == errSpliceBlind:
			return false, "", nil
		case err != nil:
			return true, "source", err
		case n == 0:
			// A socket whose bytes splice(2) does not see says the same as
			// one that has ended: read(2) tells them apart.
			return false, "", nil
		}
		if side, err := t.deliver(pipes, raws, n); err != nil {
			return true, side, err
		}
	}
}

// deliver brings the n bytes of the first pipe to both targets.
func (t *tee) deliver(pipes [2]*pipe.Pipe, raws [2]syscall.RawConn, n int) (side string, err error) {
	first, second := pipes[0], pipes[1]
	first.Held = n
	for first.Held > 0 {
		// The second pipe is empty and has as many slots: tee(2) takes all, or
		// a part if it was granted fewer.
		m, err := sys.Tee(first.R, second.W, first.Held)
		if err == nil && m == 0 {
			err = syscall.EIO
		}
		if err != nil {
			return "", errors.Join(err, t.keepBoth(first, first.Held))
		}
		second.Held = m
		rest := first.Held - m
		for i, p := range [2]*pipe.Pipe{first, second} {
			if e := t.pump(i, p, raws[i], m); e != nil && err == nil {
				side, err = teeSides[i], e
			}
		}
		if first.Held = rest; err != nil && rest > 0 {
			err = errors.Join(err, t.keepBoth(first, rest))
		}
		if err != nil {
			return side, err
		}
	}
	return "", nil
}

// pump empties n bytes of a pipe into a target.
func (t *tee) pump(i int, p *pipe.Pipe, raw syscall.RawConn, n int) error {
	for n > 0 && raw != nil {
		m, err := emptyPipe(p, raw, n)
		if err == syscall.EINVAL || err == syscall.EOPNOTSUPP || err == syscall.EBADF {
			break // O_APPEND, or what can't be spliced to
		}
		if err == nil && m == 0 {
			err = syscall.EIO
		}
		if err != nil {
			return errors.Join(err, t.keep(i, p, n))
		}
		t.ends[i].Bytes += int64(m)
		p.Held -= m
		n -= m
	}
	if n == 0 {
		return nil
	}
	b, err := take(p, n)
	return errors.Join(t.write(i, b), err)
}

// keep notes n bytes of a pipe as undelivered.
func (t *tee) keep(i int, p *pipe.Pipe, n int) error {
	b, err := take(p, n)
	t.ends[i].Undelivered = append(t.ends[i].Undelivered, b...)
	return err
}

func (t *tee) keepBoth(p *pipe.Pipe, n int) error {
	b, err := take(p, n)
	for i := range t.ends {
		t.ends[i].Undelivered = append(t.ends[i].Undelivered, b...)
	}
	return err
}

// take reads n bytes out of a pipe.
func take(p *pipe.Pipe, n int) ([]byte, error) {
	b := make([]byte, n)
	got := 0
	for got < n {
		m, err := sys.Read(p.R, b[got:])
		if err == nil && m == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return b[:got], err
		}
		got += m
	}
	p.Held -= n
	return b, nil
}

var errSpliceBlind = errors.New("splice sees nothing")

// fillPipe splices from src into an empty pipe.
func fillPipe(src syscall.RawConn, p *pipe.Pipe) (n int, err error) {
	const attempts = 3
	outer := src.Read(func(fd uintptr) bool {
		for range attempts {
			n, err = sys.Splice(int(fd), p.W, p.Size)
			if err != syscall.EAGAIN {
				return true
			}
			if !sys.Readable(int(fd)) {
				return false
			}
		}
		err = errSpliceBlind
		return true
	})
	if outer != nil {
		return 0, outer
	}
	return n, err
}

func emptyPipe(p *pipe.Pipe, dst syscall.RawConn, n int) (m int, err error) {
	outer := dst.Write(func(fd uintptr) bool {
		m, err = sys.Splice(p.R, int(fd), n)
		return err != syscall.EAGAIN
	})
	if outer != nil {
		return 0, outer
	}
	return m, err
}

// rawOf returns nil for what has no descriptor, and for a socket that keeps
// message boundaries.
func rawOf(v any) syscall.RawConn {
	c, ok := v.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	stream := true
	err = raw.Control(func(fd uintptr) {
		if kind, err := sys.SocketType(int(fd)); err == nil {
			stream = kind == syscall.SOCK_STREAM
		}
	})
	if err != nil || !stream {
		return nil
	}
	return raw
}
