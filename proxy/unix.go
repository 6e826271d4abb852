package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// listenUnix binds to the file of addr. Two servers that start at the same
// time on the same stale file must not both remove it, the slower one taking
// away the file that the faster one has bound: the check and the bind happen
// under a lock on the directory.
func listenUnix(ctx context.Context, addr Addr, o SocketOptions) (net.Listener, error) {
	if !strings.HasPrefix(addr.Address, "@") { // an abstract name has no file
		unlock, err := lockDir(ctx, filepath.Dir(addr.Address))
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
		defer unlock()
		if err := removeStale(ctx, addr.Address); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
	}
	ln, err := listenWith(ctx, &net.ListenConfig{}, addr, o)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, cause(err))
	}
	u := ln.(*net.UnixListener)
	u.SetUnlinkOnClose(false)
	return &boundUnix{UnixListener: u, file: socketFileAt(addr.Address)}, nil
}

// boundUnix is a unix listener whose file is ours to remove. That of a socket
// that was passed to this process is not.
type boundUnix struct {
	*net.UnixListener
	file  *socketFile
	leave bool // the file, when the listener is closed
}

// SetUnlinkOnClose is as that of [net.UnixListener].
func (l *boundUnix) SetUnlinkOnClose(unlink bool) { l.leave = !unlink }

func (l *boundUnix) Close() error {
	if !l.leave {
		l.file.remove()
	}
	return l.UnixListener.Close()
}

// SocketPath returns the path of the file of a unix socket that [Listen] has opened,
// or [Inheritance.Listener] taken over. "" is that there is none, or that it is not
// the socket's any more.
func SocketPath(ln net.Listener) string {
	if l, ok := ln.(*boundUnix); ok && l.file.there() {
		return l.file.path
	}
	return ""
}

// A socketFile is the file of a unix socket, of which another one may have the path
// by now. nil: the socket has none.
type socketFile struct {
	path string
	info fs.FileInfo
	once sync.Once
}

// socketFileAt is called once the socket is bound.
func socketFileAt(path string) *socketFile {
	info, err := os.Lstat(path)
	if err != nil {
		return nil // it has an abstract name, or the file was removed meanwhile
	}
	return &socketFile{path: path, info: info}
}

// there reports whether the path is still that of the file.
func (f *socketFile) there() bool {
	if f == nil {
		return false
	}
	info, err := os.Lstat(f.path)
	return err == nil && os.SameFile(info, f.info)
}

// remove is called before the socket is closed: until then it holds the inode,
// whose number no other file can have, and nobody who starts takes the file for
// a stale one.
func (f *socketFile) remove() {
	if f == nil {
		return
	}
	f.once.Do(func() {
		if f.there() {
			_ = os.Remove(f.path)
		}
	})
}

// removeStale removes the file of a socket that nobody listens on.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("the file exists and is no socket: %w", fs.ErrExist)
	}
	// A listener with a full backlog keeps connect waiting: it is in use too.
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("another process listens on it: %w", syscall.EADDRINUSE)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	case errors.Is(err, syscall.EPROTOTYPE):
		return fmt.Errorf("the file is a socket, but of datagrams: %w", syscall.EADDRINUSE)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("another process listens on it: %w", syscall.EADDRINUSE)
	default:
		return fmt.Errorf("is it in use? %w", cause(err))
	}
}
