package splice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// A HeaderTrailer is what [SendFile] sends before and after the file's bytes,
// like the sf_hdtr of BSD's sendfile(2).
type HeaderTrailer struct {
	Headers, Trailers [][]byte
}

// SendFile sends n bytes of file, from offset on, to conn, with headers before
// and trailers after them, as BSD's sendfile(2) does:
//
//   - n of 0 means to the end of the file, which is where it is when the call
//     begins, or for a file whose size is not true (as in /proc and /sys)
//     where reading ends.
//   - The file's own offset stays as it is, so one file can be sent by many
//     goroutines at once.
//   - The count is of all bytes that conn has accepted, headers and trailers
//     included, and is right together with an error too.
//   - A file that ends before n bytes were sent, because it is too short or
//     was truncated meanwhile, is [io.ErrUnexpectedEOF]. The trailers are not
//     sent then.
//
// On Linux the file's pages go to a TCP or unix socket by sendfile(2), without
// passing through this process; headers, body and trailers of a TCP connection
// leave in full segments (TCP_CORK). As with every sendfile, a file that is
// changed before the peer has read it is sent as changed. A connection without
// a descriptor (crypto/tls), another system, or a file that the kernel can't
// send is read and written; of a file with O_DIRECT, what is no whole block too,
// and all if the connection is in blocking mode, where sendfile(2) could wait for
// ever. A socket that keeps message boundaries (UDP, unixgram, unixpacket) is
// EINVAL, as is its like for BSD's sendfile; a pipe or terminal as the file is
// ESPIPE, since it has no offsets: see [Copy].
//
// ctx ends a wait for the peer, and between calls of some 50 ms. conn's write deadline is cleared, used for that
// and cleared again. SendFile closes nothing. The error is nil, or an [*Error]
// that wraps the cause of ctx, the errno or io.ErrUnexpectedEOF.
func SendFile(ctx context.Context, conn net.Conn, file *os.File, offset, n int64, ht HeaderTrailer) (int64, error) {
	if conn == nil || file == nil || offset < 0 || n < 0 || offset+n < offset {
		return 0, &Error{Op: "send file", Err: syscall.EINVAL}
	}
	if keepsMessages(conn) {
		return 0, &Error{Op: "send file", Side: "target", Err: fmt.Errorf("not a stream: %w", syscall.EINVAL)}
	}
	s := &sending{conn: conn, out: conn, file: file, off: offset}
	if err := s.measure(n); err != nil {
		return 0, &Error{Op: "send file", Side: "source", Err: err}
	}
	if err := s.identify(); err != nil {
		return 0, &Error{Op: "send file", Side: "target", Err: closedError(err)}
	}
	_ = conn.SetWriteDeadline(time.Time{})
	over := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(over)
		_ = conn.SetWriteDeadline(time.Unix(1, 0))
	})
	side, err := s.run(ctx, ht)
	if !cancel() {
		<-over
		if errors.Is(err, os.ErrDeadlineExceeded) {
			side, err = "", context.Cause(ctx)
		}
	}
	_ = conn.SetWriteDeadline(time.Time{})
	if err != nil {
		return s.sent, &Error{Op: "send file", Side: side, Err: closedError(err)}
	}
	return s.sent, nil
}

// keepsMessages says whether conn is a socket that would cut the stream into
// messages.
func keepsMessages(conn net.Conn) bool {
	switch c := conn.(type) {
	case *net.UDPConn, *net.IPConn:
		return true
	case *net.UnixConn:
		a := c.LocalAddr()
		return a != nil && a.Network() != "unix"
	}
	return false
}

// sending is a SendFile under way.
type sending struct {
	conn    net.Conn
	out     io.Writer       // what is not sent by sendfile(2) is written here
	socket  syscall.RawConn // nil: sendfile(2) is not to be asked
	file    *os.File
	off     int64
	left    int64
	toEnd   bool // of the file
	unsized bool // left is not known: until reading ends
	sent    int64
}

func (s *sending) measure(n int64) error {
	if s.left, s.toEnd = n, n == 0; !s.toEnd {
		return nil
	}
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	s.left = max(0, info.Size()-s.off)
	// Files of /proc are regular, and empty until one reads them; devices have
	// no size here either.
	s.unsized = info.Size() == 0 || !info.Mode().IsRegular()
	return nil
}

func (s *sending) run(ctx context.Context, ht HeaderTrailer) (side string, err error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	uncork, err := s.cork()
	if err != nil {
		return "target", err
	}
	defer func() {
		if e := uncork(); err == nil && e != nil {
			side, err = "target", e
		}
	}()
	if err := s.buffers(ht.Headers); err != nil {
		return "target", err
	}
	if side, err := s.body(); err != nil {
		return side, err
	}
	if err := s.buffers(ht.Trailers); err != nil {
		return "target", err
	}
	return "", nil
}

func (s *sending) buffers(list [][]byte) error {
	if len(list) == 0 {
		return nil
	}
	b := net.Buffers(append([][]byte(nil), list...)) // WriteTo consumes it
	n, err := b.WriteTo(s.out)
	s.sent += n
	return err
}

// body sends the file's bytes.
func (s *sending) body() (side string, err error) {
	if done, side, err := s.inKernel(); done {
		return side, err
	}
	return s.copy()
}

// copy reads and writes what is left.
func (s *sending) copy() (side string, err error) {
	const size = 128 << 10
	buf := make([]byte, size)
	for s.left > 0 || s.unsized {
		part := buf
		if !s.unsized {
			part = buf[:min(size, s.left)]
		}
		n, err := s.read(part)
		if n == 0 {
			if err == io.EOF {
				err = s.ended()
			}
			return "source", err
		}
		m, werr := s.out.Write(part[:n])
		s.moved(m)
		if werr != nil {
			return "target", werr
		}
	}
	return "", nil
}

// ended says whether the file may end here: if not, it was truncated, or never
// had what was asked for. A file of /sys says that it has a page, which it need
// not have.
func (s *sending) ended() error {
	if s.unsized {
		return nil
	}
	if info, err := s.file.Stat(); s.toEnd && err == nil && info.Size() >= s.off+s.left {
		return nil
	}
	return io.ErrUnexpectedEOF
}

func (s *sending) moved(n int) {
	s.sent += int64(n)
	s.off += int64(n)
	s.left -= int64(n)
}
