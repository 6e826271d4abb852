package probe

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

const tmpfsDir = "/dev/shm"

func tempDir() string { return os.TempDir() }

// closers closes what a probe has opened, the latest first.
type closers []func()

func (c *closers) add(f func()) { *c = append(*c, f) }

func (c *closers) close() {
	for i := len(*c) - 1; i >= 0; i-- {
		(*c)[i]()
	}
}

func (c *closers) fd(fd int) int {
	c.add(func() { _ = sys.Close(fd) })
	return fd
}

// tempFile returns a file that has no name any more.
func tempFile(c *closers, dir string, content []byte) (*os.File, error) {
	f, err := os.CreateTemp(dir, "probe-*")
	if err != nil {
		return nil, missing(err)
	}
	c.add(func() { _ = f.Close() })
	if err := os.Remove(f.Name()); err != nil {
		return nil, missing(err)
	}
	if dir == tmpfsDir {
		if magic, err := sys.FileSystem(int(f.Fd())); err != nil || magic != tmpfsMagic {
			return nil, missing(fmt.Errorf("%s is no tmpfs", dir))
		}
	}
	if _, err := f.WriteAt(content, 0); err != nil {
		return nil, missing(err)
	}
	return f, nil
}

// tmpfsMagic is TMPFS_MAGIC of linux/magic.h.
const tmpfsMagic = 0x01021994

func newPipe(c *closers) (r, w int, err error) {
	r, w, err = sys.Pipe()
	if err != nil {
		return 0, 0, missing(err)
	}
	c.fd(r)
	c.fd(w)
	return r, w, nil
}

// newPair returns two connected stream sockets, both non-blocking.
func newPair(c *closers, family int) (a, b int, err error) {
	a, b, err = pair(c, family)
	return a, b, missing(err)
}

func pair(c *closers, family int) (a, b int, err error) {
	if family == syscall.AF_UNIX {
		p, err := syscall.Socketpair(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			return 0, 0, fmt.Errorf("socketpair: %w", err)
		}
		return c.fd(p[0]), c.fd(p[1]), nil
	}
	ln, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("socket: %w", err)
	}
	c.fd(ln)
	var any syscall.Sockaddr = &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if family == syscall.AF_INET6 {
		any = &syscall.SockaddrInet6{Addr: [16]byte{15: 1}}
	}
	if err := syscall.Bind(ln, any); err != nil {
		return 0, 0, fmt.Errorf("bind to the loopback address: %w", err)
	}
	if err := syscall.Listen(ln, 1); err != nil {
		return 0, 0, fmt.Errorf("listen: %w", err)
	}
	addr, err := syscall.Getsockname(ln)
	if err != nil {
		return 0, 0, fmt.Errorf("getsockname: %w", err)
	}
	a, err = syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("socket: %w", err)
	}
	c.fd(a)
	if err := syscall.Connect(a, addr); err != nil {
		return 0, 0, fmt.Errorf("connect to the loopback address: %w", err)
	}
	b, _, err = syscall.Accept4(ln, syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
	if err != nil {
		return 0, 0, fmt.Errorf("accept: %w", err)
	}
	c.fd(b)
	if _, err := sys.SetNonblock(a, true); err != nil {
		return 0, 0, err
	}
	return a, b, nil
}

// readFull reads len(b) bytes from a socket or pipe that has been sent them.
func readFull(fd int, b []byte) error {
	for n := 0; n < len(b); {
		if err := readable(fd); err != nil {
			return err
		}
		m, err := sys.Read(fd, b[n:])
		if err != nil && !errors.Is(err, syscall.EAGAIN) {
			return fmt.Errorf("read: %w", err)
		}
		if m == 0 && err == nil {
			return fmt.Errorf("read: ended after %d of %d bytes", n, len(b))
		}
		n += max(m, 0)
	}
	return nil
}

func readable(fd int) error {
	ok, err := sys.ReadableWithin(fd, patience)
	if err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	if !ok {
		return fmt.Errorf("nothing to read after %v", patience)
	}
	return nil
}
