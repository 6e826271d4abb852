package transfer

import (
	"errors"
	"io"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// A format is what a descriptor refers to.
type format uint8

const (
	fileFormat   format = iota // a regular file, those of /proc too, or a block device
	pipeFormat                 // a pipe or FIFO
	socketFormat               // a stream socket
	deviceFormat               // a character device
)

// blockingWrite is what a pipe that poll(2) calls writable takes without
// waiting (PIPE_BUF).
const blockingWrite = 4096

// An end is a descriptor that is used directly. Its waits go through Go's
// poller if the descriptor is with it: then deadlines end them. Else they hold
// a thread in poll(2), and wake ends them.
type end struct {
	raw      syscall.RawConn
	format   format
	id       sys.FileID
	blocking bool // without O_NONBLOCK, as after os.File.Fd
	appends  bool
	direct   bool // O_DIRECT
	polled   bool
	wake     int // eventfd, or -1
	watch    *watch
}

// newEnd returns nil if c is to be used by its methods, and why.
func newEnd(v any, clearDeadline func() bool) (*end, Why, error) {
	c, ok := v.(syscall.Conn)
	if !ok {
		return nil, WhyNoDescriptor, nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, "", err
	}
	e := &end{raw: raw, wake: -1}
	why, inner := whyFirstChoice, error(nil)
	if err := raw.Control(func(fd uintptr) { why, inner = e.identify(int(fd)) }); err != nil {
		return nil, "", err
	}
	if inner != nil || why != whyFirstChoice {
		return nil, why, inner
	}
	e.polled = clearDeadline()
	return e, "", nil
}

func (e *end) identify(fd int) (Why, error) {
	id, err := sys.Identify(fd)
	if err != nil {
		return "", err
	}
	flags, err := sys.FileFlags(fd)
	if err != nil {
		return "", err
	}
	e.id = id
	e.blocking = flags&syscall.O_NONBLOCK == 0
	e.appends = flags&syscall.O_APPEND != 0
	e.direct = flags&sys.OpenDirect != 0
	switch id.Format {
	case syscall.S_IFSOCK:
		typ, err := sys.SocketType(fd)
		if err != nil {
			return "", err
		}
		if typ != syscall.SOCK_STREAM {
			return WhyNotAStream, nil
		}
		e.format = socketFormat
	case syscall.S_IFIFO:
		e.format = pipeFormat
	case syscall.S_IFCHR:
		e.format = deviceFormat
	default:
		e.format = fileFormat
	}
	return whyFirstChoice, nil
}

// errCut ends a wait that deadlines don't reach.
var errCut = errors.New("cut")

// reading calls f until it answers anything but EAGAIN, and waits for the end
// to be readable in between.
//
// Invariant: f answers EAGAIN only if the end was not readable after f's last
// attempt. Go's poller wakes by edges, and none would come.
func (e *end) reading(f func(fd int) (int, error)) (n int, err error) {
	outer := e.raw.Read(func(fd uintptr) (over bool) {
		n, err, over = e.attempt(int(fd), sys.Readable, sys.AwaitReadable, f)
		return over
	})
	if outer != nil {
		return 0, outer
	}
	return n, err
}

// writing is reading for a write.
func (e *end) writing(f func(fd int) (int, error)) (n int, err error) {
	outer := e.raw.Write(func(fd uintptr) (over bool) {
		n, err, over = e.attempt(int(fd), sys.Writable, sys.AwaitWritable, f)
		return over
	})
	if outer != nil {
		return 0, outer
	}
	return n, err
}

// attempt is over when f has answered; else Go's poller is to wait.
func (e *end) attempt(fd int, ready func(int) bool, wait func(fd, wake int) error,
	f func(int) (int, error),
) (n int, err error, over bool) {
	for {
		if _, cut := e.watch.cut(); cut {
			return 0, errCut, true
		}
		// A call on a blocking descriptor is not made before its time: nothing
		// could interrupt it.
		if !e.waits() || !e.blocking || ready(fd) {
			if n, err = f(fd); err != syscall.EAGAIN {
				return n, err, true
			}
		}
		if e.polled {
			return 0, nil, false
		}
		if err = wait(fd, e.wake); err != nil {
			return 0, err, true
		}
	}
}

// waits says whether a call can wait for the other side of the end.
func (e *end) waits() bool { return e.format != fileFormat }

// control calls f with the descriptor, which stays open meanwhile.
func (e *end) control(f func(fd int)) error {
	return e.raw.Control(func(fd uintptr) { f(int(fd)) })
}

// wait waits for the end to be readable.
func (e *end) wait() error {
	_, err := e.reading(func(fd int) (int, error) {
		if e.waits() && !sys.Readable(fd) {
			return 0, syscall.EAGAIN
		}
		return 0, nil
	})
	return err
}

// Read is read(2), or recv(2).
func (e *end) Read(p []byte) (int, error) {
	n, err := e.reading(func(fd int) (int, error) {
		if e.format == socketFormat {
			return sys.Recv(fd, p)
		}
		return e.buffered(fd, p, sys.Read)
	})
	if n <= 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

// Write is write(2), or send(2), until everything is written.
func (e *end) Write(p []byte) (done int, err error) {
	for done < len(p) && err == nil {
		var n int
		n, err = e.writing(func(fd int) (int, error) {
			rest := p[done:]
			if e.format == socketFormat {
				return sys.Send(fd, rest)
			}
			if e.blocking && e.waits() {
				rest = rest[:min(len(rest), blockingWrite)]
			}
			return e.buffered(fd, rest, sys.Write)
		})
		if n == 0 && err == nil {
			err = io.ErrShortWrite
		}
		done += n
	}
	return done, err
}

// buffered calls f, and if direct I/O refuses what is no whole block at its
// place, as the end of most files, again without it. The flag belongs to all
// who share the open file: that is as long as the call takes.
func (e *end) buffered(fd int, p []byte, f func(fd int, p []byte) (int, error)) (n int, err error) {
	if n, err = f(fd, p); err != syscall.EINVAL || !e.direct {
		return n, err
	}
	flags, err := sys.FileFlags(fd)
	if err != nil {
		return 0, err
	}
	if err := sys.SetFileFlags(fd, flags&^sys.OpenDirect); err != nil {
		return 0, err
	}
	n, err = f(fd, p)
	if e := sys.SetFileFlags(fd, flags); err == nil {
		err = e
	}
	return n, err
}
