package run

import (
	"fmt"
	"unsafe"

	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/sys"
)

// allocate makes a buffer for each unit: the engine's own, or pages.
func (w *worker) allocate(depth, block int) error {
	var buffers [][]byte
	if own, ok := w.engine.(ioengine.Buffers); ok {
		var err error
		if buffers, err = own.Buffers(); err != nil {
			return err
		}
	} else {
		const page = 4096
		each := (block + page - 1) &^ (page - 1)
		align := int(w.o.MemAlign)
		if align > page {
			each = (each + align - 1) / align * align
		}
		huge := w.o.Mem == "mmaphuge"
		size := each*depth + max(align, page)
		if huge {
			h := int(w.o.HugePage)
			size = (size + h - 1) / h * h
		}
		m, err := sys.MapMemory(size, w.o.Mem == "mmapshared", huge)
		if err != nil {
			return fmt.Errorf("%d bytes of buffers (mem=%s): %w", size, w.o.Mem, err)
		}
		w.memory = m
		from := 0
		if align > page {
			from = alignment(m, align)
		} else if align > 0 && align < page {
			// The mapping is aligned to a page, so any offset below is
			// aligned as asked for.
			from = 0
		}
		for i := range depth {
			buffers = append(buffers, m[from+i*each:from+(i+1)*each:from+(i+1)*each])
		}
	}
	if n := w.o.LockMemory; n > 0 {
		m, err := sys.LockedMemory(int(n))
		if err != nil {
			return fmt.Errorf("lockmem=%d: %w", n, err)
		}
		w.locked = m
	}
	for i, b := range buffers[:depth] {
		w.units = append(w.units, &ioengine.Unit{Buf: b, Index: i})
		if changes(w.o) {
			w.filler.Once(b[:block])
		}
	}
	w.free = append(w.free, w.units...)
	w.finished = make([]*ioengine.Unit, 0, depth)
	return nil
}

// alignment is the first offset in m that is a multiple of align.
func alignment(m []byte, align int) int {
	return (align - int(uintptr(unsafe.Pointer(unsafe.SliceData(m)))%uintptr(align))) % align
}
