package netbench

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// lookMsec is how often a wait looks whether it is still wanted.
const lookMsec = 20

// sockmapSender sends the pattern, as far as the flight allows.
type sockmapSender struct {
	flight   *flight
	to, room int
	size     int
	// With a file it is sendfile(2), and what is queued are references to the
	// file's pages. Without, it is send(2), and what is queued takes memory.
	file    *os.File
	pattern *pattern
}

func (s *sockmapSender) send(total int64) (int, error) {
	if s.file == nil {
		return sys.Send(s.to, s.pattern.at(0, total, s.size))
	}
	offset := total % patternPeriod
	return sys.SendfileAt(s.to, int(s.file.Fd()), &offset, s.size)
}

// newPatternFile returns a file without a name that holds the pattern.
func newPatternFile(p *pattern) (*os.File, error) {
	f, err := os.CreateTemp("", "spliced-pattern-*")
	if err == nil {
		err = os.Remove(f.Name())
	}
	if err == nil {
		_, err = f.Write(p.bytes)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, fmt.Errorf("make a file to send: %w", err)
	}
	return f, nil
}

func (s *sockmapSender) run() {
	defer close(s.flight.landed)
	for total := int64(0); s.flight.maySend(s.size); {
		n, err := s.send(total)
		switch {
		case n > 0:
			total += int64(n)
			s.flight.send(n)
		case err == nil:
			s.flight.fail(errors.New("send: nothing was taken, and no error given"))
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ENOBUFS):
			s.rest()
		default:
			s.flight.fail(fmt.Errorf("send: %w", err))
		}
	}
}

// rest waits for room. Who redirects what is sent has no event for it: then the
// socket is writable all the time, and the only way is to try again.
func (s *sockmapSender) rest() {
	const pause = 50 * time.Microsecond
	if ready, err := sys.WaitWritable(s.room, 0); err == nil && ready {
		time.Sleep(pause)
		return
	}
	_, _ = sys.WaitWritable(s.room, lookMsec) // the next call finds out what is wrong
}

// sockmapForwarder reads from one socket and writes to another.
type sockmapForwarder struct {
	flight   *flight
	from, to int
}

func (f *sockmapForwarder) run() {
	buf := make([]byte, 128<<10)
	for f.flight.moving() {
		n, err := sys.Recv(f.from, buf)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			_, _ = sys.WaitReadable(f.from, lookMsec)
			continue
		case err != nil:
			f.flight.fail(fmt.Errorf("forward: receive: %w", err))
			return
		case n == 0:
			return
		}
		for out := buf[:n]; len(out) > 0 && f.flight.moving(); {
			sent, err := sys.Send(f.to, out)
			switch {
			case errors.Is(err, syscall.EAGAIN):
				_, _ = sys.WaitWritable(f.to, lookMsec)
			case err != nil:
				f.flight.fail(fmt.Errorf("forward: send: %w", err))
				return
			}
			out = out[sent:]
		}
	}
}

// taker takes what has arrived: n bytes of b, 0 for the end, or EAGAIN.
type taker interface {
	take(b []byte) (int, error)
	close()
}

func newTaker(consumer string, fd int) (taker, error) {
	if consumer == "splice" {
		return newSplicer(fd)
	}
	return receiver(fd), nil
}

// receiver takes by recv(2).
type receiver int

func (r receiver) take(b []byte) (int, error) { return sys.Recv(int(r), b) }
func (r receiver) close()                     {}

// splicer takes by splice(2), and reads from the pipe to verify.
type splicer struct {
	from, in, out int
	moved         bool // something, once
	refusals      int  // of splice(2), in front of something readable
}

func newSplicer(from int) (*splicer, error) {
	out, in, err := sys.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	_, _ = sys.SetPipeSize(in, pipeSizeLimit()) // smaller is slower
	return &splicer{from: from, in: in, out: out}, nil
}

func (s *splicer) close() {
	_ = sys.Close(s.in)
	_ = sys.Close(s.out)
}

// A blindError says that splice(2) can't see what recv(2) can.
type blindError struct{ answer string }

func (e *blindError) Error() string {
	return fmt.Sprintf("splice(2) %s while poll(2) says that there is something to read: this kernel has no splice_read for sockets in a sockmap", e.answer)
}

func (s *splicer) take(b []byte) (int, error) {
	n, err := sys.Splice(s.from, s.in, len(b))
	if n > 0 {
		s.moved = true
		for got := 0; got < n; {
			m, err := sys.Read(s.out, b[got:n])
			if err != nil {
				return 0, fmt.Errorf("read from the pipe: %w", err)
			}
			got += m
		}
		return n, nil
	}
	if err != nil && !errors.Is(err, syscall.EAGAIN) {
		return 0, err
	}
	if s.moved {
		return 0, err
	}
	return 0, s.blind(err)
}

// blind judges the first calls, which moved nothing. Nobody ends the stream
// here, and nobody else reads: what is readable once stays so.
func (s *splicer) blind(err error) error {
	const enough = 20
	if readable, pollErr := sys.WaitReadable(s.from, 0); pollErr != nil || !readable {
		return syscall.EAGAIN
	}
	if s.refusals++; s.refusals < enough {
		time.Sleep(time.Millisecond)
		return syscall.EAGAIN
	}
	if err == nil {
		return &blindError{"says that the stream has ended"}
	}
	return &blindError{"says EAGAIN"}
}
