// Package parcel passes messages, with open files, between two processes over a
// unix stream socket.
package parcel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// MaxFiles is how many descriptors a parcel may have: SCM_MAX_FD of the kernel is
// 253.
const MaxFiles = 250

// The limits of what is received.
const (
	maxBody = 16 << 20
	maxRaw  = 256 << 20
)

// A Parcel is one message.
type Parcel struct {
	Body  []byte // the message itself
	Raw   []byte // bytes that are not to be encoded
	Files []*os.File
}

// Close closes the files that nobody has taken: see [Parcel.Take].
func (p *Parcel) Close() {
	for _, f := range p.Files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Take hands file i to the caller; nil: there is none, or it was taken.
func (p *Parcel) Take(i int) *os.File {
	if i < 0 || i >= len(p.Files) {
		return nil
	}
	f := p.Files[i]
	p.Files[i] = nil
	return f
}

// A header comes first, and the descriptors with it.
type header struct {
	Magic     [4]byte
	Body, Raw uint32
	Files     uint32
}

const headerSize = 16

var magic = [4]byte{'s', 'p', 'l', 'P'}

// Send sends a parcel. The descriptors stay open here.
func Send(c *net.UnixConn, body, raw []byte, fds ...int) error {
	if len(body) > maxBody || len(raw) > maxRaw || len(fds) > MaxFiles {
		return fmt.Errorf("a parcel of %d + %d bytes and %d descriptors: %w", len(body), len(raw), len(fds), syscall.EMSGSIZE)
	}
	h := header{Magic: magic, Body: uint32(len(body)), Raw: uint32(len(raw)), Files: uint32(len(fds))}
	first, err := binary.Append(nil, binary.BigEndian, h)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(first, rights, nil)
	if err != nil {
		return err
	}
	for _, rest := range [][]byte{first[n:], body, raw} {
		if len(rest) == 0 {
			continue
		}
		if _, err := c.Write(rest); err != nil {
			return err
		}
	}
	return nil
}

// Receive returns the next parcel, whose files are to be closed. io.EOF says that
// the other side has sent its last.
func Receive(c *net.UnixConn) (p *Parcel, err error) {
	p = new(Parcel)
	defer func() {
		if err != nil {
			p.Close()
			p = nil
		}
	}()
	first := make([]byte, headerSize)
	oob := make([]byte, syscall.CmsgSpace(4*MaxFiles))
	n, oobn, flags, _, err := c.ReadMsgUnix(first, oob)
	if err == nil && n == 0 || errors.Is(err, io.EOF) {
		err = io.EOF // not in a net.OpError
	}
	if err != nil {
		return p, err
	}
	if p.Files, err = files(oob[:oobn]); err != nil {
		return p, err
	}
	if flags&syscall.MSG_CTRUNC != 0 {
		return p, errors.New("descriptors were lost: the limit of open files (RLIMIT_NOFILE) is too low")
	}
	if _, err := io.ReadFull(c, first[n:]); err != nil {
		return p, unexpected(err)
	}
	var h header
	if _, err := binary.Decode(first, binary.BigEndian, &h); err != nil {
		return p, err
	}
	switch {
	case h.Magic != magic:
		return p, errors.New("this is no message of spliced")
	case h.Body > maxBody || h.Raw > maxRaw || int(h.Files) != len(p.Files):
		return p, fmt.Errorf("a message of %d + %d bytes and %d descriptors, of which %d came: %w", h.Body, h.Raw, h.Files, len(p.Files), syscall.EMSGSIZE)
	}
	p.Body, p.Raw = make([]byte, h.Body), make([]byte, h.Raw)
	for _, b := range [][]byte{p.Body, p.Raw} {
		if _, err := io.ReadFull(c, b); err != nil {
			return p, unexpected(err)
		}
	}
	return p, nil
}

// files opens what came along.
func files(oob []byte) (list []*os.File, err error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			return list, fmt.Errorf("control message: %w", err)
		}
		for _, fd := range fds {
			list = append(list, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return list, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Descriptor returns the descriptor of c, which is valid as long as c is open.
func Descriptor(c any) (int, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("%T has no descriptor: %w", c, errors.ErrUnsupported)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}
