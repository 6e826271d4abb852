package netbench

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// blocking is a view of a connection whose reads and writes are plain blocking
// system calls, so that a latency is the path's and not that of Go's poller and
// scheduler. Closing it leaves the connection open.
type blocking struct {
	file     *os.File
	fd       int
	holds    bool          // one of the scheduler's processors, while it waits
	patience time.Duration // 0: for ever
}

// turn is how long a read may hold a processor, and so keep the garbage
// collector waiting, when nothing comes.
const turn = 50 * time.Millisecond

// newBlocking locks the goroutine to its thread until it is closed. It makes
// the connection itself blocking too: nothing else may read or write there.
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
	if b.holds = holdProcessor(); b.holds {
		if err := b.receiveTimeout(turn); err != nil {
			releaseProcessor()
			file.Close()
			return nil, err
		}
	}
	runtime.LockOSThread()
	return b, nil
}

// timeout has reads that wait longer than d answer os.ErrDeadlineExceeded.
func (b *blocking) timeout(d time.Duration) error {
	b.patience = d
	if b.holds {
		return nil // read by read
	}
	return b.receiveTimeout(d)
}

func (b *blocking) receiveTimeout(d time.Duration) error {
	tv := syscall.NsecToTimeval(int64(d))
	return os.NewSyscallError("setsockopt SO_RCVTIMEO",
		syscall.SetsockoptTimeval(b.fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &tv))
}

func (b *blocking) Read(p []byte) (int, error) {
	read := syscall.Read
	if b.holds {
		read = sys.RecvHolding
	}
	var silent time.Time // since when, roughly
	for {
		n, err := read(b.fd, p)
		switch {
		case b.holds && (errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)):
			// The scheduler's signals end most turns early.
			now := time.Now()
			if silent.IsZero() {
				silent = now
			}
			if b.patience > 0 && now.Sub(silent) >= b.patience {
				return 0, os.ErrDeadlineExceeded
			}
			runtime.Gosched()
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
		n, err := sys.Send(b.fd, p[written:])
		if errors.Is(err, syscall.EAGAIN) {
			n, err = syscall.Write(b.fd, p[written:]) // this one waits
		}
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
	if b.holds {
		releaseProcessor()
	}
	return b.file.Close()
}

// heldMost is how many connections may hold a processor of Go's scheduler. More
// than these wait as everybody does.
const heldMost = 64

// held counts them. GOMAXPROCS belongs to the process, and so does this.
var held struct {
	sync.Mutex
	n int
}

// holdProcessor adds to the scheduler's processors what may be held, before
// the first is.
func holdProcessor() bool {
	held.Lock()
	defer held.Unlock()
	if held.n == heldMost {
		return false
	}
	if held.n == 0 {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + heldMost)
	}
	held.n++
	return true
}

func releaseProcessor() {
	held.Lock()
	defer held.Unlock()
	if held.n--; held.n == 0 {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) - heldMost)
	}
}
