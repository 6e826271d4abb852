package ioengine

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/spliced-io/spliced/internal/sys"
)

func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func dirOf(name string) string { return filepath.Dir(name) }

// fileMemory is memory that is a file at the same time: what a call moves to
// the file is in the buffers without another copy, and the other way round.
type fileMemory struct {
	f      *os.File
	mapped []byte
	block  int
}

// newFileMemory makes depth buffers of block bytes in an unnamed file in dir.
func newFileMemory(dir string, depth, block int) (*fileMemory, error) {
	const page = 4096
	block = (block + page - 1) &^ (page - 1)
	f, err := sys.OpenTemp(dir)
	if err != nil {
		return nil, fmt.Errorf("temporary file in %s: %w", dir, err)
	}
	m := &fileMemory{f: f, block: block}
	size := int64(block) * int64(depth)
	if err = sys.Fallocate(int(f.Fd()), false, 0, size); err != nil {
		err = f.Truncate(size)
	}
	if err == nil {
		m.mapped, err = sys.MapFile(int(f.Fd()), 0, int(size), true)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("buffers in %s: %w", dir, err)
	}
	return m, nil
}

// Buffers returns the buffers, one a block.
func (m *fileMemory) Buffers() ([][]byte, error) {
	var list [][]byte
	for i := 0; i < len(m.mapped); i += m.block {
		list = append(list, m.mapped[i:i+m.block:i+m.block])
	}
	return list, nil
}

// offset is where a unit's next byte is in the file.
func (m *fileMemory) offset(u *Unit) int64 {
	return int64(uintptr(unsafe.Pointer(&u.Buf[u.At])) - uintptr(unsafe.Pointer(&m.mapped[0])))
}

func (m *fileMemory) fd() int { return int(m.f.Fd()) }

func (m *fileMemory) close() {
	_ = sys.Unmap(m.mapped)
	_ = m.f.Close()
}
