package run

import (
	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/rnd"
)

// pick chooses the file; nil: all are done.
func (w *worker) pick() *cursor {
	if len(w.cursors) == 1 {
		if w.cursors[0].finished {
			return nil
		}
		return w.cursors[0]
	}
	n := len(w.cursors)
	switch w.o.FileService {
	case "random":
		if w.turnLeft <= 0 || w.cursors[w.turn].finished {
			w.turn, w.turnLeft = int(w.r.Below(uint64(n))), w.o.FileServiceNr
		}
	case "zipf", "pareto", "normal", "gauss":
		if w.skewFiles == nil {
			kind := w.o.FileService
			if kind == "gauss" {
				kind = "normal"
			}
			w.skewFiles = rnd.NewSkewed(&w.r, kind, uint64(n), w.o.FileServiceArg, -1)
		}
		w.turn = int(w.skewFiles.Next())
	case "sequential":
	default:
		if w.turnLeft <= 0 {
			w.turn, w.turnLeft = (w.turn+1)%n, w.o.FileServiceNr
		}
	}
	w.turnLeft--
	for range n {
		if c := w.cursors[w.turn]; !c.finished {
			return c
		}
		w.turn = (w.turn + 1) % n
	}
	return nil
}

// openOne opens a file and closes another if openfiles says so.
func (w *worker) openOne(f *ioengine.File) error {
	if w.traits.Diskless {
		return nil
	}
	open := 0
	for _, g := range w.files {
		if g.FD >= 0 {
			open++
		}
	}
	if open >= w.o.OpenFiles && w.o.OpenFiles < len(w.files) {
		for _, g := range w.files {
			busy := false
			for _, u := range w.units {
				busy = busy || u.Busy && u.File == g
			}
			if g.FD >= 0 && !busy {
				_ = w.engine.Close(g)
				w.closeFile(g)
				break
			}
		}
	}
	return w.open(f)
}
