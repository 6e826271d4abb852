package netbench

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
)

// blocking is a view of a connection whose reads and writes are plain blocking
// system calls: Go's poller would add its own wake-up to each latency. Closing
// it leaves the connection open.
type blocking struct {
	file *os.File
	fd   int
}

// newBlocking locks the goroutine to its thread until it ends. It makes the
// connection itself blocking too: nothing else may read or write there.
func newBlocking(conn *net.TCPConn) (*blocking, error) {
	file, err := conn.File()
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor: %w", err)
	}
	b := &blocking{file: file, fd: int(file.Fd())}
	if err := syscall.SetNonblock(b.fd, false); err != nil {
		file.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	runtime.LockOSThread()
	return b, nil
}

// timeout has reads that wait longer than d answer os.ErrDeadlineExceeded.
func (b *blocking) timeout(d time.Duration) error {
	tv := syscall.NsecToTimeval(int64(d))
	return os.NewSyscallError("setsockopt SO_RCVTIMEO",
		syscall.SetsockoptTimeval(b.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &tv))
}

func (b *blocking) Read(p []byte) (int, error) {
	for {
		n, err := syscall.Read(b.fd, p)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, os.ErrDeadlineExceeded
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (b *blocking) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n, err := syscall.Write(b.fd, p[written:])
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return written, os.NewSyscallError("write", err)
		}
		written += n
	}
	return written, nil
}

func (b *blocking) Close() error {
	runtime.UnlockOSThread()
	return b.file.Close()
}
