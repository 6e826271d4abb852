package probe

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spliced-io/spliced/internal/sys"
)

var errShort = errors.New("fewer than asked for")

const (
	bigPipe = 1 << 20
	// manyPipes of a MiB are twice what the kernel's default allowance of
	// 16,384 pages (fs.pipe-user-pages-soft) holds.
	manyPipes = 128
)

// pipeDefault measures the pipe that pipe(2) makes.
func pipeDefault() Capability {
	const name = "pipe.default-size"
	var c closers
	defer c.close()
	r, _, err := newPipe(&c)
	if err != nil {
		return failed(name, err)
	}
	n, err := sys.PipeSize(r)
	if err != nil {
		return failed(name, fmt.Errorf("fcntl F_GETPIPE_SZ: %w", err))
	}
	result := yes(name, fmt.Sprintf("%d bytes", n))
	result.Value = int64(n)
	if n < 64<<10 {
		result.Answer = No
		result.Reason = fmt.Sprintf("%d bytes: this user's allowance of pipes (fs.pipe-user-pages-soft) is used up", n)
	}
	return result
}

// pipeGrant asks for a pipe of a MiB.
func pipeGrant() Capability {
	const name = "pipe.mebibyte"
	var c closers
	defer c.close()
	r, w, err := newPipe(&c)
	if err != nil {
		return failed(name, err)
	}
	n, err := sys.SetPipeSize(w, bigPipe)
	limits := fmt.Sprintf("fs.pipe-max-size %s, fs.pipe-user-pages-soft %s, fs.pipe-user-pages-hard %s",
		sysctl("pipe-max-size"), sysctl("pipe-user-pages-soft"), sysctl("pipe-user-pages-hard"))
	if err != nil {
		size, _ := sys.PipeSize(r)
		result := failed(name, fmt.Errorf("fcntl F_SETPIPE_SZ: %w; it stays at %d bytes (%s)", err, size, limits))
		result.Value = int64(size)
		return result
	}
	result := yes(name, fmt.Sprintf("granted %d bytes (%s)", n, limits))
	result.Value = int64(n)
	return result
}

// pipeCount counts the pipes of a MiB that this user gets. Others of the same
// user share the allowance: it is used up for a few milliseconds.
func pipeCount() Capability {
	const name = "pipe.many-mebibytes"
	var c closers
	defer c.close()
	n, err := fillAllowance(&c)
	if err == nil {
		result := yes(name, fmt.Sprintf("all of %d were granted a MiB: no allowance applies, or a larger one", n))
		result.Value = int64(n)
		return result
	}
	result := failed(name, fmt.Errorf("%d were granted a MiB, then: %w", n, err))
	result.Value = int64(n)
	return result
}

// pipeCliff measures the pipe that is made when the allowance is used up.
func pipeCliff() Capability {
	const name = "pipe.size-beyond-allowance"
	var c closers
	defer c.close()
	n, err := fillAllowance(&c)
	if err == nil {
		return unknown(name, fmt.Sprintf("not measured: %d pipes of a MiB did not use the allowance up", n))
	}
	// What is left of the allowance is less than a MiB: sixteen pipes of the
	// default size at most.
	smallest := 0
	for range 32 {
		r, _, err := newPipe(&c)
		if err != nil {
			return failed(name, err)
		}
		size, err := sys.PipeSize(r)
		if err != nil {
			return failed(name, fmt.Errorf("fcntl F_GETPIPE_SZ: %w", err))
		}
		if smallest == 0 || size < smallest {
			smallest = size
		}
	}
	result := yes(name, fmt.Sprintf("%d bytes: as large as ever", smallest))
	if smallest < 64<<10 {
		result = no(name, fmt.Sprintf("%d bytes: less than a pipe must have to be worth its calls", smallest))
	}
	result.Value = int64(smallest)
	return result
}

// fillAllowance opens pipes of a MiB until the kernel grants none any more. The
// error is nil if it never ended.
func fillAllowance(c *closers) (int, error) {
	for n := range manyPipes {
		_, w, err := newPipe(c)
		if err != nil {
			return n, err
		}
		if _, err := sys.SetPipeSize(w, bigPipe); err != nil {
			return n, fmt.Errorf("fcntl F_SETPIPE_SZ: %w", err)
		}
	}
	return manyPipes, nil
}

// sysctl returns a setting under /proc/sys/fs, or why it can't be read.
func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/fs/" + name)
	if err != nil {
		return "unreadable"
	}
	s := strings.TrimSpace(string(b))
	if _, err := strconv.ParseUint(s, 10, 63); err != nil {
		return "unreadable"
	}
	return s
}
