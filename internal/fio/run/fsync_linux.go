package run

import (
	"github.com/spliced-io/spliced/internal/fio/ioengine"
)

func (w *worker) unsyncedDue() bool {
	if w.o.Fsync == 0 && w.o.Fdatasync == 0 || w.unsynced == 0 {
		return false
	}
	return w.o.Fsync > 0 && w.unsynced%w.o.Fsync == 0 || w.o.Fdatasync > 0 && w.unsynced%w.o.Fdatasync == 0
}

// syncFile makes an fsync or fdatasync of all files written to.
func (w *worker) syncFile(u *ioengine.Unit) error {
	dir := ioengine.Fdatasync
	if w.o.Fsync > 0 && w.unsynced%w.o.Fsync == 0 {
		dir = ioengine.Fsync
	}
	w.unsynced = 0
	if w.traits.Diskless {
		return nil
	}
	for _, f := range w.files {
		if f.FD < 0 {
			continue
		}
		u.Dir, u.File, u.Offset, u.Len, u.N, u.Err, u.At = dir, f, 0, 0, 0, nil, 0
		from := w.now()
		w.engine.Do(u)
		w.st.SyncIOs++
		w.st.SyncLat.Add(uint64(w.now() - from))
		if u.Err != nil {
			if err := w.fail(dir, f, 0, u.Err); err != nil {
				return err
			}
		}
	}
	return nil
}
