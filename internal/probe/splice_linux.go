package probe

import (
	"bytes"
	"fmt"
	"os"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// chunk is what a probe moves: one page.
const chunk = 4096

// A source is a kind of descriptor to splice from. open returns one that has a
// page to give; want is that page, nil where it can't be known.
type source struct {
	name string
	open func(c *closers) (fd int, want []byte, err error)
}

// A sink is a kind of descriptor to splice to. open returns one, and a
// function that reads back what has arrived, nil where nothing can be read.
type sink struct {
	name string
	open func(c *closers) (fd int, got func(b []byte) error, err error)
}

var sources = [...]source{
	{"tcp4", socketSource(syscall.AF_INET)},
	{"tcp6", socketSource(syscall.AF_INET6)},
	{"unix-stream", socketSource(syscall.AF_UNIX)},
	{"pipe", func(c *closers) (int, []byte, error) {
		r, w, err := newPipe(c)
		if err != nil {
			return 0, nil, err
		}
		_, err = sys.Write(w, page('p'))
		return r, page('p'), missing(err)
	}},
	{"file", fileSource(os.TempDir, 0)},
	{"file-direct", fileSource(os.TempDir, syscall.O_DIRECT)},
	{"tmpfs", fileSource(func() string { return tmpfsDir }, 0)},
	{"dev-zero", pathSource("/dev/zero", make([]byte, chunk))},
	{"dev-urandom", pathSource("/dev/urandom", nil)},
	{"proc-version", pathSource("/proc/version", nil)},
	{"proc-self-maps", pathSource("/proc/self/maps", nil)},
	{"sys-online-cpus", pathSource("/sys/devices/system/cpu/online", nil)},
}

var sinks = [...]sink{
	{"tcp4", socketSink(syscall.AF_INET)},
	{"tcp6", socketSink(syscall.AF_INET6)},
	{"unix-stream", socketSink(syscall.AF_UNIX)},
	{"pipe", func(c *closers) (int, func([]byte) error, error) {
		r, w, err := newPipe(c)
		return w, func(b []byte) error { return readFull(r, b) }, err
	}},
	{"file", fileSink(os.TempDir, 0)},
	{"file-append", fileSink(os.TempDir, syscall.O_APPEND)},
	{"tmpfs", fileSink(func() string { return tmpfsDir }, 0)},
	{"dev-null", func(c *closers) (int, func([]byte) error, error) {
		fd, err := syscall.Open("/dev/null", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return 0, nil, missing(err)
		}
		return c.fd(fd), nil, nil
	}},
}

// spliceFrom moves a page from a source into a pipe.
func spliceFrom(s source) Capability {
	name := "splice-from." + s.name
	var c closers
	defer c.close()
	fd, want, err := s.open(&c)
	if err != nil {
		return failed(name, err)
	}
	r, w, err := newPipe(&c)
	if err != nil {
		return failed(name, err)
	}
	if err := readable(fd); err != nil {
		return unknown(name, err.Error())
	}
	n, err := sys.Splice(fd, w, chunk)
	if err != nil {
		return failed(name, fmt.Errorf("splice: %w", err))
	}
	if n == 0 {
		return no(name, "splice: moved nothing, though there is something to read")
	}
	got := make([]byte, n)
	if err := readFull(r, got); err != nil {
		return unknown(name, err.Error())
	}
	if want != nil && !bytes.Equal(got, want[:n]) {
		return no(name, fmt.Sprintf("splice: moved %d bytes, but not those of the source", n))
	}
	return yes(name, fmt.Sprintf("moved %d bytes", n))
}

// spliceTo moves a page from a pipe into a sink.
func spliceTo(s sink) Capability {
	name := "splice-to." + s.name
	var c closers
	defer c.close()
	fd, got, err := s.open(&c)
	if err != nil {
		return failed(name, err)
	}
	r, w, err := newPipe(&c)
	if err != nil {
		return failed(name, err)
	}
	want := page('s')
	if _, err := sys.Write(w, want); err != nil {
		return failed(name, missing(err))
	}
	n, err := sys.Splice(r, fd, chunk)
	if err != nil {
		return failed(name, fmt.Errorf("splice: %w", err))
	}
	if got == nil {
		return yes(name, fmt.Sprintf("moved %d bytes", n))
	}
	b := make([]byte, n)
	if err := got(b); err != nil {
		return unknown(name, err.Error())
	}
	if n == 0 || !bytes.Equal(b, want[:n]) {
		return no(name, fmt.Sprintf("splice: moved %d bytes, but not those of the pipe", n))
	}
	return yes(name, fmt.Sprintf("moved %d bytes", n))
}

func page(fill byte) []byte { return bytes.Repeat([]byte{fill}, chunk) }

func socketSource(family int) func(*closers) (int, []byte, error) {
	return func(c *closers) (int, []byte, error) {
		a, b, err := newPair(c, family)
		if err != nil {
			return 0, nil, err
		}
		_, err = sys.Send(a, page('k'))
		return b, page('k'), missing(err)
	}
}

func socketSink(family int) func(*closers) (int, func([]byte) error, error) {
	return func(c *closers) (int, func([]byte) error, error) {
		a, b, err := newPair(c, family)
		return a, func(got []byte) error { return readFull(b, got) }, err
	}
}

func fileSource(dir func() string, flags int) func(*closers) (int, []byte, error) {
	return func(c *closers) (int, []byte, error) {
		f, err := tempFile(c, dir(), page('f'))
		if err != nil {
			return 0, nil, err
		}
		fd, err := reopen(c, f, syscall.O_RDONLY|flags)
		return fd, page('f'), err
	}
}

func fileSink(dir func() string, flags int) func(*closers) (int, func([]byte) error, error) {
	return func(c *closers) (int, func([]byte) error, error) {
		f, err := tempFile(c, dir(), nil)
		if err != nil {
			return 0, nil, err
		}
		fd, err := reopen(c, f, syscall.O_WRONLY|flags)
		return fd, func(got []byte) error {
			_, err := f.ReadAt(got, 0)
			return err
		}, err
	}
}

func pathSource(path string, want []byte) func(*closers) (int, []byte, error) {
	return func(c *closers) (int, []byte, error) {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return 0, nil, missing(fmt.Errorf("open %s: %w", path, err))
		}
		return c.fd(fd), want, nil
	}
}

// reopen opens a file anew, though its name is gone.
func reopen(c *closers, f *os.File, flags int) (int, error) {
	fd, err := syscall.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flags|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, missing(fmt.Errorf("open with other flags: %w", err))
	}
	return c.fd(fd), nil
}
