package ioengine

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// sendfileEngine reads by sendfile from the file to the buffers, which are in
// a file in memory, or to a connection if the job names a host; it writes the
// other way round.
type sendfileEngine struct {
	fileCalls
	*fileMemory
	evidence Evidence
	peer     *peer // nil: no host
}

func newSendfile(c Config) (Engine, error) {
	m, err := newFileMemory(memoryDir, c.Depth, c.Block)
	if err != nil {
		return nil, err
	}
	e := &sendfileEngine{fileMemory: m, evidence: Evidence{
		Path: "file → memory by sendfile, and back", ToUser: "copied (sendfile)",
	}}
	if o := c.Options; o.Hostname != "" {
		if o.Writes() {
			m.close()
			return nil, errors.New("ioengine=sendfile with hostname sends the file: rw must be read or randread")
		}
		if e.peer, err = dialPeer(c); err != nil {
			m.close()
			return nil, err
		}
		e.evidence.Path, e.evidence.ToUser = "file → socket by sendfile", "not moved there"
	}
	return e, nil
}

// memoryDir is a tmpfs on every Linux.
const memoryDir = "/dev/shm"

func (e *sendfileEngine) Open(f *File) error {
	if e.evidence.Shared == "" {
		e.evidence.Shared = probeFilePages(f)
	}
	return nil
}

func (e *sendfileEngine) Evidence() *Evidence { return &e.evidence }

func (e *sendfileEngine) Shutdown() {
	if e.peer != nil {
		e.peer.finish()
	}
	e.fileMemory.close()
}

func (e *sendfileEngine) Close(*File) error { return nil }

func (e *sendfileEngine) Do(u *Unit) {
	switch u.Dir {
	case Read:
		if e.peer != nil {
			e.send(u)
			return
		}
		if u.Err = seek(e.fd(), e.offset(u)); u.Err == nil {
			off := u.Offset
			u.N, u.Err = sys.SendfileAt(e.fd(), u.File.FD, &off, u.Len)
		}
	case Write:
		if u.Err = seek(u.File.FD, u.Offset); u.Err == nil {
			off := e.offset(u)
			u.N, u.Err = sys.SendfileAt(u.File.FD, e.fd(), &off, u.Len)
		}
	default:
		e.other(u)
		return
	}
	if errors.Is(u.Err, syscall.EINVAL) {
		u.Err = fmt.Errorf("sendfile does not work on this file system: %w", u.Err)
	}
}

func (e *sendfileEngine) send(u *Unit) {
	off := u.Offset
	for u.N < u.Len {
		n, err := sys.SendfileAt(e.peer.fd, u.File.FD, &off, u.Len-u.N)
		if err == syscall.EAGAIN {
			if err = e.peer.wait(sys.WaitWritable); err == nil {
				continue
			}
		}
		if err != nil || n == 0 {
			u.Err = err
			return
		}
		u.N += n
	}
}

func seek(fd int, off int64) error {
	_, err := syscall.Seek(fd, off, 0)
	return err
}

// copyRangeEngine moves by copy_file_range between the file and buffers that
// are in an unnamed file beside it, which the file system may do by sharing
// blocks, or a server without sending the bytes.
type copyRangeEngine struct {
	fileCalls
	*fileMemory
	evidence Evidence
}

func newCopyRange(c Config) (Engine, error) {
	m, err := newFileMemory(c.Dir, c.Depth, c.Block)
	if err != nil {
		return nil, err
	}
	return &copyRangeEngine{fileMemory: m, evidence: Evidence{
		Path: "file → file in the same directory by copy_file_range", ToUser: "mapped",
		Shared: probeClone(c.Dir),
	}}, nil
}

func (e *copyRangeEngine) Evidence() *Evidence { return &e.evidence }
func (e *copyRangeEngine) Shutdown()           { e.fileMemory.close() }
func (e *copyRangeEngine) Close(*File) error   { return nil }

func (e *copyRangeEngine) Do(u *Unit) {
	off, mine := u.Offset, int64(0)
	if u.Dir <= Write {
		mine = e.offset(u)
	}
	switch u.Dir {
	case Read:
		u.N, u.Err = sys.CopyFileRangeAt(u.File.FD, &off, e.fd(), &mine, u.Len)
	case Write:
		u.N, u.Err = sys.CopyFileRangeAt(e.fd(), &mine, u.File.FD, &off, u.Len)
	default:
		e.other(u)
		return
	}
	if errors.Is(u.Err, syscall.EXDEV) || errors.Is(u.Err, syscall.EOPNOTSUPP) {
		u.Err = fmt.Errorf("copy_file_range does not work between these files: %w", u.Err)
	}
}

// probeClone says whether the file system can share blocks between files.
func probeClone(dir string) string {
	a, err := sys.OpenTemp(dir)
	if err != nil {
		return "unknown: " + err.Error()
	}
	defer a.Close()
	b, err := sys.OpenTemp(dir)
	if err != nil {
		return "unknown: " + err.Error()
	}
	defer b.Close()
	if _, err := a.Write(make([]byte, 4096)); err != nil {
		return "unknown: " + err.Error()
	}
	if err := sys.CloneFile(int(b.Fd()), int(a.Fd())); err != nil {
		return "copied (blocks can't be shared here: " + err.Error() + ")"
	}
	return "shared (blocks)"
}
