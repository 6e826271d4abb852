package run

import (
	"bytes"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/fio/ioengine"
	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/fio/stat"
	"github.com/spliced-io/spliced/internal/sys"
)

// piecemeal is an engine that moves at most so many bytes at once, as a signal
// or a full disk would make it.
type piecemeal struct {
	ioengine.Async
	most   int
	wanted map[*ioengine.Unit]int
}

func (p *piecemeal) Queue(u *ioengine.Unit) bool {
	p.wanted[u] = u.Len
	u.Len = min(u.Len, p.most)
	return p.Async.Queue(u)
}

func (p *piecemeal) Wait(least, most int, done []*ioengine.Unit) ([]*ioengine.Unit, error) {
	done, err := p.Async.Wait(least, most, done)
	for _, u := range done {
		u.Len = p.wanted[u]
	}
	return done, err
}

// What an engine moves in parts arrives whole, each part in its place, with
// several units on the way.
func TestUnitsGoOnWhereTheyStopped(t *testing.T) {
	const depth, block = 4, 16 << 10
	for _, engine := range []string{"io_uring", "libaio", "posixaio"} {
		name := filepath.Join(t.TempDir(), "f")
		want := make([]byte, depth*block)
		for i := range want {
			want[i] = byte(i>>9 ^ i)
		}
		if err := os.WriteFile(name, want, 0o600); err != nil {
			t.Fatal(err)
		}
		fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer sys.Close(fd)
		o := &job.Options{Engine: engine, RW: "read", IODepth: depth, DepthBatch: depth, NoBW: true}
		e, err := ioengine.New(engine, ioengine.Config{Options: o, Depth: depth, Block: block, Stop: new(atomic.Bool)})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Shutdown()
		file := &ioengine.File{Name: name, FD: fd, Size: int64(len(want))}
		w := &worker{
			o: o, run: &Run{epoch: time.Now()}, st: &stat.Job{},
			async: &piecemeal{e.(ioengine.Async), 4096, map[*ioengine.Unit]int{}},
		}
		w.lat.init(w)
		got := make([]byte, len(want))
		for i := range depth {
			u := &ioengine.Unit{Buf: got[i*block : (i+1)*block], Index: i, Dir: Read, File: file, Len: block, Size: block}
			u.Offset, u.Block = int64(i*block), int64(i*block)
			w.units = append(w.units, u)
			if err := w.queue(u); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.flushQueue(); err != nil {
			t.Fatalf("%s: %v", engine, err)
		}
		d := w.st.Dirs[Read]
		if !bytes.Equal(got, want) || d.IOs != depth || d.Bytes != depth*block || len(w.free) != depth {
			t.Errorf("%s: %d reads of %d bytes, %d units free, the same bytes: %v", engine, d.IOs, d.Bytes, len(w.free), bytes.Equal(got, want))
		}
		if d.Short != depth*(block/4096-1) {
			t.Errorf("%s: %d short transfers, want %d", engine, d.Short, depth*(block/4096-1))
		}
	}
}
