package splice_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// eachFileSystem runs f with a directory on each file system that the calls
// have to know, made for it.
func eachFileSystem(t *testing.T, f func(t *testing.T, kind, dir string)) {
	for _, kind := range testnet.FileSystems() {
		t.Run(kind, func(t *testing.T) {
			testnet.Leaks(t)
			f(t, kind, testnet.FileSystem(t, kind))
		})
	}
}

func TestCopyOnFileSystems(t *testing.T) {
	data := randomBytes(3<<20 + 4321)
	eachFileSystem(t, func(t *testing.T, kind, dir string) {
		onDisk := func(t testing.TB) (io.Reader, func() []byte) { return copyFile(t, dir, data) }
		target := func(flags int) func(t testing.TB) (io.Writer, func() []byte) {
			return func(t testing.TB) (io.Writer, func() []byte) { return copyTarget(t, dir, flags) }
		}
		other := func(t testing.TB) (io.Writer, func() []byte) {
			return copyTarget(t, testnet.FileSystem(t, "tmpfs"), 0)
		}
		socket, pipe := copyDrains[0].open, copyDrains[2].open
		from := func(i int) func(t testing.TB) (io.Reader, func() []byte) {
			return func(t testing.TB) (io.Reader, func() []byte) { return copySources[i].open(t, data) }
		}
		for _, c := range []struct {
			name   string
			src    func(t testing.TB) (io.Reader, func() []byte)
			dst    func(t testing.TB) (io.Writer, func() []byte)
			method splice.Method
			why    splice.CopyWhy
		}{
			{"file to file", onDisk, target(0), splice.MethodCopyFileRange, ""},
			{"file to another file system", onDisk, other, splice.MethodSendFile, splice.CopyWhyFileSystem},
			{"file to the end of a file", onDisk, target(os.O_APPEND), splice.MethodReadWrite, splice.CopyWhyAppend},
			{"file to socket", onDisk, socket, splice.MethodSendFile, ""},
			{"file to pipe", onDisk, pipe, splice.MethodSendFile, ""},
			{"socket to file", from(0), target(0), splice.MethodSplice, ""},
			{"socket to the end of a file", from(0), target(os.O_APPEND), splice.MethodReadWrite, splice.CopyWhyAppend},
			{"pipe to file", from(2), target(0), splice.MethodSplice, ""},
		} {
			t.Run(c.name, func(t *testing.T) {
				src, _ := c.src(t)
				dst, got := c.dst(t)
				res, err := splice.Copy(t.Context(), dst, src)
				if err != nil || res.Bytes != int64(len(data)) || !bytes.Equal(got(), data) {
					t.Fatalf("%+v, %v, the same bytes: %v", res, err, bytes.Equal(got(), data))
				}
				if res.Method != c.method || res.Why != c.why {
					t.Errorf("by %s because of %q, want %s because of %q", res.Method, res.Why, c.method, c.why)
				}
				if wants := c.method != splice.MethodReadWrite; wants != (res.InKernel == res.Bytes) {
					t.Errorf("%d of %d bytes in the kernel by %s", res.InKernel, res.Bytes, res.Method)
				}
			})
		}
	})
}

// Direct I/O has rules for lengths, offsets and addresses that differ between
// file systems; a copy keeps them, or does without the page cache's help what
// can be done.
func TestCopyDirect(t *testing.T) {
	eachFileSystem(t, func(t *testing.T, kind, dir string) {
		for _, size := range []int{1 << 20, 1<<20 + 4096, 1<<20 + 100, 7} {
			data := randomBytes(size)
			name := filepath.Join(dir, "src")
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			open := func(t *testing.T, name string, flags int) *os.File {
				f, err := os.OpenFile(name, flags, 0o600)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { f.Close() })
				return f
			}
			t.Run(fmt.Sprintf("%d to socket", size), func(t *testing.T) {
				near, far := copyTCP(t)
				got := collect(near, far)
				res, err := splice.Copy(t.Context(), near, open(t, name, os.O_RDONLY|syscall.O_DIRECT))
				if all := got(); err != nil || !bytes.Equal(all, data) {
					t.Errorf("%+v, %v, received %d", res, err, len(all))
				}
			})
			t.Run(fmt.Sprintf("%d by SendFile", size), func(t *testing.T) {
				near, far := copyTCP(t)
				got := collect(near, far)
				n, err := splice.SendFile(t.Context(), near, open(t, name, os.O_RDONLY|syscall.O_DIRECT), 0, 0, splice.HeaderTrailer{})
				if all := got(); err != nil || !bytes.Equal(all, data) {
					t.Errorf("%d, %v, received %d", n, err, len(all))
				}
			})
			t.Run(fmt.Sprintf("%d to file", size), func(t *testing.T) {
				to := filepath.Join(dir, "dst")
				dst := open(t, to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_DIRECT)
				res, err := splice.Copy(t.Context(), dst, open(t, name, os.O_RDONLY|syscall.O_DIRECT))
				if all, _ := os.ReadFile(to); err != nil || !bytes.Equal(all, data) {
					t.Errorf("%+v, %v, wrote %d", res, err, len(all))
				}
			})
			t.Run(fmt.Sprintf("%d from pipe", size), func(t *testing.T) {
				src, _ := copySources[2].open(t, data)
				to := filepath.Join(dir, "dst")
				dst := open(t, to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_DIRECT)
				res, err := splice.Copy(t.Context(), dst, src)
				if all, _ := os.ReadFile(to); err != nil || !bytes.Equal(all, data) {
					t.Errorf("%+v, %v, wrote %d", res, err, len(all))
				}
			})
		}
	})
}

// Offsets beyond 2 and 4 GiB, in files that occupy next to nothing.
func TestFarOffsetsOnFileSystems(t *testing.T) {
	eachFileSystem(t, func(t *testing.T, kind, dir string) {
		const size = 5 << 30
		src, err := os.Create(filepath.Join(dir, "src"))
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		if err := src.Truncate(size); err != nil {
			t.Fatal(err)
		}
		mark := randomBytes(64 << 10)
		for _, at := range []int64{2 << 30, 4 << 30, size} {
			at -= int64(len(mark)) / 2
			if at+int64(len(mark)) > size {
				at = size - int64(len(mark))
			}
			if _, err := src.WriteAt(mark, at); err != nil {
				t.Fatal(err)
			}
			near, far := copyTCP(t)
			got := collect(near, far)
			n, err := splice.SendFile(t.Context(), near, src, at, int64(len(mark)), splice.HeaderTrailer{})
			if all := got(); err != nil || n != int64(len(mark)) || !bytes.Equal(all, mark) {
				t.Errorf("SendFile from %d: %d, %v, received %d", at, n, err, len(all))
			}
			dst, err := os.Create(filepath.Join(dir, "dst"))
			if err != nil {
				t.Fatal(err)
			}
			defer dst.Close()
			if err := errors.Join(seekTo(src, at), seekTo(dst, at)); err != nil {
				t.Fatal(err)
			}
			res, err := splice.Copy(t.Context(), dst, src, splice.MaxBytes(int64(len(mark)), 0))
			back := make([]byte, len(mark))
			if _, e := dst.ReadAt(back, at); err != nil || e != nil || !bytes.Equal(back, mark) || res.Method != splice.MethodCopyFileRange {
				t.Errorf("Copy at %d: %+v, %v, %v", at, res, err, e)
			}
		}
	})
}

func seekTo(f *os.File, at int64) error {
	_, err := f.Seek(at, io.SeekStart)
	return err
}

func TestSendFileAndTeeOnFileSystems(t *testing.T) {
	data := randomBytes(2<<20 + 77)
	eachFileSystem(t, func(t *testing.T, kind, dir string) {
		src, _ := copyFile(t, dir, data)
		near, far := copyTCP(t)
		got := collect(near, far)
		ht := splice.HeaderTrailer{Headers: [][]byte{[]byte("head")}, Trailers: [][]byte{[]byte("tail")}}
		n, err := splice.SendFile(t.Context(), near, src.(*os.File), 0, 0, ht)
		if all := got(); err != nil || n != int64(len(data))+8 || string(all) != "head"+string(data)+"tail" {
			t.Errorf("SendFile: %d, %v, received %d", n, err, len(all))
		}
		near, far = copyTCP(t)
		got = collect(near, far)
		dst, onDisk := copyTarget(t, dir, 0)
		ends, err := splice.Tee(t.Context(), near, dst, src)
		if all := got(); err != nil || !bytes.Equal(all, data) || !bytes.Equal(onDisk(), data) || ends[1].InKernel != int64(len(data)) {
			t.Errorf("Tee from a file: %+v, %v, received %d", ends, err, len(all))
		}
		stream, _ := copySources[0].open(t, data)
		if err := os.Mkdir(filepath.Join(dir, "other"), 0o700); err != nil {
			t.Fatal(err)
		}
		appended, all := copyTarget(t, filepath.Join(dir, "other"), os.O_APPEND)
		ends, err = splice.Tee(t.Context(), dst, appended, stream)
		if err != nil || !bytes.Equal(all(), data) || !bytes.Equal(onDisk(), append(bytes.Clone(data), data...)) ||
			ends[0].InKernel != int64(len(data)) || ends[1].InKernel != 0 {
			t.Errorf("Tee to the end of a file: %+v, %v", ends, err)
		}
	})
}
