package ioengine

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/sys"
)

func engineOn(t testing.TB, name string, size int) (Engine, *File, *Unit) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = byte(i>>12 + i)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := &File{Name: path, FD: fd, Size: 1 << 20, Write: true}
	e, err := New(name, Config{Options: &job.Options{}, Depth: 1, Block: size, Dir: filepath.Dir(path), Stop: new(atomic.Bool)})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Open(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = e.Close(f)
		e.Shutdown()
		_ = sys.Close(fd)
	})
	buf := make([]byte, size)
	if own, ok := e.(Buffers); ok {
		list, err := own.Buffers()
		if err != nil {
			t.Fatal(err)
		}
		buf = list[0]
	}
	return e, f, &Unit{Buf: buf, File: f}
}

// The loop around an engine runs a million times a second: it must not
// allocate.
func TestTransfersDoNotAllocate(t *testing.T) {
	for _, name := range []string{"sync", "psync", "pvsync", "mmap", "null", "splice", "sendfile", "copy_file_range"} {
		e, _, u := engineOn(t, name, 4096)
		for _, dir := range []int{Read, Write} {
			n := testing.AllocsPerRun(100, func() {
				u.Dir, u.Offset, u.At, u.Len, u.N, u.Err = dir, 8192, 0, 4096, 0, nil
				if e.Do(u); u.Err != nil || u.N != 4096 {
					t.Fatalf("%s: moved %d, %v", name, u.N, u.Err)
				}
			})
			if n > 0 {
				t.Errorf("%s: %v allocations in direction %d", name, n, dir)
			}
		}
	}
}

// A read across the end of the file returns what is there, and then nothing.
func TestReadsAcrossTheEnd(t *testing.T) {
	for _, name := range []string{"sync", "psync", "pvsync", "splice", "sendfile", "copy_file_range", "io_uring", "libaio", "posixaio"} {
		e, f, u := engineOn(t, name, 8192)
		read := func(off int64) int {
			u.Dir, u.Offset, u.At, u.Len, u.N, u.Err = Read, off, 0, 8192, 0, nil
			if e.Do(u); u.Err != nil {
				t.Errorf("%s: %v", name, u.Err)
			}
			return u.N
		}
		if n := read(f.Size - 4096); n != 4096 {
			t.Errorf("%s: %d bytes before the end, want 4096", name, n)
		}
		if n := read(f.Size); n != 0 {
			t.Errorf("%s: %d bytes at the end", name, n)
		}
		want, err := os.ReadFile(f.Name)
		if err != nil {
			t.Fatal(err)
		}
		if n := read(4096); n != 8192 || !bytes.Equal(u.Buf[:n], want[4096:4096+8192]) {
			t.Errorf("%s: %d bytes, or others than in the file", name, n)
		}
	}
}

// Nothing of one block is left in the pipe for the next one, also after an
// error in between.
func TestSplicePipeIsCleanAfterAnError(t *testing.T) {
	e, f, u := engineOn(t, "splice", 64<<10)
	for i := range u.Buf {
		u.Buf[i] = 'x'
	}
	readOnly, err := syscall.Open(f.Name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(readOnly)
	broken := &File{Name: f.Name, FD: readOnly, Size: f.Size}
	u.Dir, u.File, u.Len = Write, broken, len(u.Buf)
	if e.Do(u); u.Err == nil || u.N != 0 {
		t.Fatalf("wrote %d to a read-only descriptor, %v", u.N, u.Err)
	}
	want, err := os.ReadFile(f.Name)
	if err != nil {
		t.Fatal(err)
	}
	u.Dir, u.File, u.Offset, u.N, u.Err = Read, f, 4096, 0, nil
	if e.Do(u); u.Err != nil || !bytes.Equal(u.Buf, want[4096:4096+len(u.Buf)]) {
		t.Errorf("the next read got other bytes than the file's, %v", u.Err)
	}
}

// A mapping does not inherit the advice of its file: without its own, a random
// read of one page would read those around it too.
func TestMmapIsAdvised(t *testing.T) {
	for advice, flag := range map[int]string{sys.AdviseRandom: "rr", sys.AdviseSequential: "sr", sys.AdviseNormal: ""} {
		e, f, u := engineOn(t, "mmap", 4096)
		f.Advice = advice
		u.Dir, u.Len = Read, 4096
		if e.Do(u); u.Err != nil {
			t.Fatal(u.Err)
		}
		maps, err := os.ReadFile("/proc/self/smaps")
		if err != nil {
			t.Fatal(err)
		}
		_, after, found := strings.Cut(string(maps), f.Name)
		_, after, _ = strings.Cut(after, "VmFlags:")
		line, _, _ := strings.Cut(after, "\n")
		if !found {
			t.Fatalf("%s is not mapped", f.Name)
		}
		flags := strings.Fields(line)
		for _, known := range []string{"rr", "sr"} {
			if got, want := slices.Contains(flags, known), known == flag; got != want {
				t.Errorf("advice %d: the mapping has the flags %q: %s %v, want %v", advice, flags, known, got, want)
			}
		}
	}
}

// A page beyond the end of a file that was truncated is an error of the I/O,
// for short and for long copies, and the next read works.
func TestMmapOfATruncatedFile(t *testing.T) {
	for _, size := range []int{512, 8192} {
		e, f, u := engineOn(t, "mmap", size)
		do := func(dir int, off int64) error {
			u.Dir, u.Offset, u.At, u.Len, u.N, u.Err = dir, off, 0, size, 0, nil
			e.Do(u)
			return u.Err
		}
		if err := do(Read, 512<<10); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(f.Name, 256<<10); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []int{Read, Write} {
			if err := do(dir, 512<<10); err != syscall.EIO || u.N != 0 {
				t.Errorf("%d bytes in direction %d: moved %d, %v, want 0 and EIO", size, dir, u.N, err)
			}
			if err := do(dir, 0); err != nil || u.N != size {
				t.Errorf("%d bytes in direction %d: moved %d before the end, %v", size, dir, u.N, err)
			}
		}
	}
}

func TestUringOutOfFullRing(t *testing.T) {
	e, f, _ := engineOn(t, "io_uring", 4096)
	a := e.(Async)
	// The ring has one entry: a second unit has to wait for the first.
	one := &Unit{Buf: make([]byte, 4096), File: f, Len: 4096, Index: 0}
	if !a.Queue(one) {
		t.Fatal("an empty ring took nothing")
	}
	if a.Queue(&Unit{Buf: make([]byte, 4096), File: f, Len: 4096, Index: 0}) {
		t.Fatal("a full ring took one more")
	}
	done, err := a.Wait(1, 1, nil)
	if err != nil || len(done) != 1 || done[0] != one || one.N != 4096 {
		t.Errorf("%d done, %v, moved %d", len(done), err, one.N)
	}
}

func BenchmarkEngines(b *testing.B) {
	for _, name := range []string{"psync", "splice", "mmap", "null"} {
		b.Run(name, func(b *testing.B) {
			e, _, u := engineOn(b, name, 4096)
			b.SetBytes(4096)
			for b.Loop() {
				u.Dir, u.Offset, u.At, u.Len, u.N, u.Err = Read, 8192, 0, 4096, 0, nil
				e.Do(u)
			}
		})
	}
}
