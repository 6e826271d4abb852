package splice_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// copyPatience is how long anything may take that should happen at once.
const copyPatience = 20 * time.Second

// A copySource makes a reader of data. rest returns what a copy left on it.
type copySource struct {
	name string
	open func(t testing.TB, data []byte) (src io.Reader, rest func() []byte)
}

// A copyDrain makes a writer. got returns all that was written, after end.
type copyDrain struct {
	name string
	open func(t testing.TB) (dst io.Writer, got func() []byte)
}

var copySources = []copySource{
	{"tcp", func(t testing.TB, data []byte) (io.Reader, func() []byte) {
		near, far := copyTCP(t)
		return near, feed(t, near, far, data)
	}},
	{"unix", func(t testing.TB, data []byte) (io.Reader, func() []byte) {
		near, far := copyUnix(t, "unix")
		return near, feed(t, near, far, data)
	}},
	{"pipe", func(t testing.TB, data []byte) (io.Reader, func() []byte) {
		r, w := copyPipe(t)
		return r, feed(t, r, w, data)
	}},
	{"file", func(t testing.TB, data []byte) (io.Reader, func() []byte) {
		return copyFile(t, t.TempDir(), data)
	}},
	{"tmpfs", func(t testing.TB, data []byte) (io.Reader, func() []byte) {
		return copyFile(t, copyTmpfs(t), data)
	}},
	{"reader", func(t testing.TB, data []byte) (io.Reader, func() []byte) {
		r := bytes.NewReader(data)
		return r, func() []byte { b, _ := io.ReadAll(r); return b }
	}},
}

var copyDrains = []copyDrain{
	{"tcp", func(t testing.TB) (io.Writer, func() []byte) {
		near, far := copyTCP(t)
		return near, collect(near, far)
	}},
	{"unix", func(t testing.TB) (io.Writer, func() []byte) {
		near, far := copyUnix(t, "unix")
		return near, collect(near, far)
	}},
	{"pipe", func(t testing.TB) (io.Writer, func() []byte) {
		r, w := copyPipe(t)
		return w, collect(w, r)
	}},
	{"file", func(t testing.TB) (io.Writer, func() []byte) { return copyTarget(t, t.TempDir(), 0) }},
	{"tmpfs", func(t testing.TB) (io.Writer, func() []byte) { return copyTarget(t, copyTmpfs(t), 0) }},
	{"append", func(t testing.TB) (io.Writer, func() []byte) { return copyTarget(t, t.TempDir(), os.O_APPEND) }},
	{"writer", func(testing.TB) (io.Writer, func() []byte) {
		var b bytes.Buffer
		return &b, b.Bytes
	}},
}

// copyMethod is what the kernel can do for a pair.
func copyMethod(src, dst string) (splice.Method, splice.CopyWhy) {
	regular := func(name string) bool { return name == "file" || name == "tmpfs" }
	switch {
	case src == "reader" || dst == "writer":
		return splice.MethodReadWrite, splice.CopyWhyNoDescriptor
	case dst == "append":
		return splice.MethodReadWrite, splice.CopyWhyAppend
	case !regular(src):
		return splice.MethodSplice, ""
	case !regular(dst):
		return splice.MethodSendFile, ""
	case src != dst:
		return splice.MethodSendFile, splice.CopyWhyFileSystem
	}
	return splice.MethodCopyFileRange, ""
}

func eachCopyPair(t *testing.T, f func(t *testing.T, s copySource, d copyDrain)) {
	for _, s := range copySources {
		for _, d := range copyDrains {
			t.Run(s.name+" to "+d.name, func(t *testing.T) {
				testnet.Leaks(t)
				f(t, s, d)
			})
		}
	}
}

func TestCopyEveryPair(t *testing.T) {
	data := randomBytes(2<<20 + 12345)
	eachCopyPair(t, func(t *testing.T, s copySource, d copyDrain) {
		src, _ := s.open(t, data)
		dst, got := d.open(t)
		var tr splice.Transfer
		res, err := tr.Copy(t.Context(), dst, src)
		if err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(got()) != sha256.Sum256(data) {
			t.Fatal("bytes differ")
		}
		method, why := copyMethod(s.name, d.name)
		if res.Method != method || res.Why != why || tr.Method() != method {
			t.Errorf("by %s (%s), want %s (%s)", res.Method, res.Why, method, why)
		}
		inKernel := int64(len(data))
		if method == splice.MethodReadWrite {
			inKernel = 0
		}
		if res.Bytes != int64(len(data)) || res.InKernel != inKernel || res.Reason != splice.EOF || tr.Bytes() != res.Bytes {
			t.Errorf("%+v", res)
		}
	})
}

func TestCopyMaxLeavesTheNextByte(t *testing.T) {
	const first, limit = 100, 1<<20 + 77
	data := randomBytes(3 << 20)
	eachCopyPair(t, func(t *testing.T, s copySource, d copyDrain) {
		src, rest := s.open(t, data[first:])
		dst, got := d.open(t)
		res, err := splice.Copy(t.Context(), dst, src, splice.MaxBytes(limit, 0), splice.Prefetched(data[:first], nil))
		if err != nil || res.Reason != splice.Max || res.Bytes != limit || len(res.Undelivered) != 0 {
			t.Fatalf("%+v, %v", res, err)
		}
		if !bytes.Equal(got(), data[:limit]) {
			t.Fatal("bytes differ")
		}
		if !bytes.Equal(rest(), data[limit:]) {
			t.Fatal("the next byte is not on the source")
		}
	})
}

func TestCopyForced(t *testing.T) {
	data := randomBytes(1 << 20)
	eachCopyPair(t, func(t *testing.T, s copySource, d copyDrain) {
		src, _ := s.open(t, data)
		dst, got := d.open(t)
		res, err := splice.Copy(t.Context(), dst, src, splice.Use(splice.EngineCopy))
		if err != nil || res.Method != splice.MethodReadWrite || res.Why != splice.CopyWhyRequested || !bytes.Equal(got(), data) {
			t.Fatalf("%+v, %v", res, err)
		}

		src, _ = s.open(t, data)
		dst, got = d.open(t)
		res, err = splice.Copy(t.Context(), dst, src, splice.Use(splice.EngineSplice))
		if method, _ := copyMethod(s.name, d.name); method == splice.MethodReadWrite {
			if !errors.Is(err, splice.ErrEngine) || res.Bytes != 0 {
				t.Fatalf("%+v, %v", res, err)
			}
			return
		}
		if err != nil || res.Method != splice.MethodSplice || res.InKernel != int64(len(data)) || !bytes.Equal(got(), data) {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}

func TestCopyFromProc(t *testing.T) {
	want, err := os.ReadFile("/proc/filesystems")
	if err != nil || len(want) == 0 {
		t.Fatal(err)
	}
	for _, d := range copyDrains {
		t.Run(d.name, func(t *testing.T) {
			testnet.Leaks(t)
			src, err := os.Open("/proc/filesystems")
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			dst, got := d.open(t)
			res, err := splice.Copy(t.Context(), dst, src)
			if err != nil || !bytes.Equal(got(), want) || res.Reason != splice.EOF {
				t.Fatalf("%+v, %v", res, err)
			}
			if d.name != "append" && d.name != "writer" && res.Method != splice.MethodSendFile {
				t.Errorf("%+v", res)
			}
		})
	}
}

func TestCopyFromDevice(t *testing.T) {
	const n = 1<<20 + 1
	for _, d := range copyDrains {
		t.Run(d.name, func(t *testing.T) {
			testnet.Leaks(t)
			src, err := os.Open("/dev/zero")
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			dst, got := d.open(t)
			res, err := splice.Copy(t.Context(), dst, src, splice.MaxBytes(n, 0))
			if err != nil || !bytes.Equal(got(), make([]byte, n)) || res.Reason != splice.Max {
				t.Fatalf("%+v, %v", res, err)
			}
			if d.name != "append" && d.name != "writer" && res.Method != splice.MethodSplice {
				t.Errorf("%+v", res)
			}
		})
	}
}

// More than one system call can move, from a file that occupies no blocks.
func TestCopyAbove2GiB(t *testing.T) {
	const n = 2<<30 + 4097
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(n); err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	res, err := splice.Copy(t.Context(), null, f)
	if err != nil || res.Bytes != n || res.Method != splice.MethodSendFile {
		t.Fatalf("%+v, %v", res, err)
	}
}

func TestCopyOffsetsMove(t *testing.T) {
	for _, d := range []struct{ name, dir string }{{"copy_file_range", t.TempDir()}, {"sendfile", copyTmpfs(t)}} {
		t.Run(d.name, func(t *testing.T) {
			r, _ := copyFile(t, t.TempDir(), []byte("0123456789"))
			src := r.(*os.File)
			w, _ := copyTarget(t, d.dir, 0)
			dst := w.(*os.File)
			if _, err := src.Seek(3, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if _, err := dst.Seek(5, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			res, err := splice.Copy(t.Context(), dst, src, splice.MaxBytes(4, 0))
			if err != nil || string(res.Method) != d.name {
				t.Fatalf("%+v, %v", res, err)
			}
			at, _ := src.Seek(0, io.SeekCurrent)
			to, _ := dst.Seek(0, io.SeekCurrent)
			if at != 7 || to != 9 {
				t.Fatalf("offsets %d and %d", at, to)
			}
		})
	}
}

// While the drain stalls, the copy is cut; no byte may be lost.
func TestCopyCanceledWhileTheDrainStalls(t *testing.T) {
	data := randomBytes(4 << 20)
	for _, s := range copySources[:4] {
		for _, d := range copyDrains[:3] {
			t.Run(s.name+" to "+d.name, func(t *testing.T) {
				testnet.Leaks(t)
				src, rest := s.open(t, data)
				dst, got := stalled(t, d.name)
				var tr splice.Transfer
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan struct{})
				var res splice.CopyResult
				var err error
				go func() { defer close(done); res, err = tr.Copy(ctx, dst, src) }()
				untilStill(tr.Bytes)
				cancel()
				waitCopy(t, done)
				method, _ := copyMethod(s.name, d.name)
				if !errors.Is(err, context.Canceled) || res.Reason != splice.Stopped || res.Method != method || res.Bytes == 0 {
					t.Fatalf("%+v, %v", res, err)
				}
				all := bytes.Join([][]byte{got(), res.Undelivered, rest()}, nil)
				if !bytes.Equal(all, data) {
					t.Fatalf("%d bytes of %d", len(all), len(data))
				}
			})
		}
	}
}

// Every kind of end that waits: for its reader, and for its writer; and in
// blocking mode, where Go's poller is no help.
func TestCopyCanceledWhileItWaits(t *testing.T) {
	for _, blocking := range []bool{false, true} {
		for _, s := range copySources[:3] {
			for _, d := range copyDrains[:4] {
				t.Run(fmt.Sprintf("%s to %s, blocking %v", s.name, d.name, blocking), func(t *testing.T) {
					testnet.Leaks(t)
					var src io.Reader
					var far io.WriteCloser
					switch s.name {
					case "pipe":
						src, far = copyPipe(t)
					case "tcp":
						src, far = copyTCP(t)
					case "unix":
						src, far = copyUnix(t, "unix")
					}
					dst, got := d.open(t)
					if blocking {
						setBlocking(t, src)
						setBlocking(t, dst)
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					var tr splice.Transfer
					done := make(chan struct{})
					var res splice.CopyResult
					var err error
					go func() { defer close(done); res, err = tr.Copy(ctx, dst, src) }()
					if _, err := io.WriteString(far, "some"); err != nil {
						t.Fatal(err)
					}
					for deadline := time.Now().Add(copyPatience); tr.Bytes() < 4; time.Sleep(time.Millisecond) {
						if time.Now().After(deadline) {
							t.Fatal("nothing was copied")
						}
					}
					cancel()
					waitCopy(t, done)
					if !errors.Is(err, context.Canceled) || res.Reason != splice.Stopped || res.Bytes != 4 {
						t.Fatalf("%+v, %v", res, err)
					}
					wantMethod, wantWhy := splice.MethodSplice, splice.CopyWhy("")
					if blocking && (s.name != "pipe" || d.name == "tcp" || d.name == "unix") {
						wantMethod, wantWhy = splice.MethodReadWrite, splice.CopyWhyBlocking
					}
					if res.Method != wantMethod || res.Why != wantWhy {
						t.Errorf("by %s (%s)", res.Method, res.Why)
					}
					if string(got()) != "some" {
						t.Error("bytes differ")
					}
				})
			}
		}
	}
}

func TestCopyBlockingPipeStalls(t *testing.T) {
	testnet.Leaks(t)
	for _, engine := range []splice.Engine{splice.EngineAuto, splice.EngineCopy} {
		r, w := copyPipe(t)
		w.Fd() // blocking from now on
		src, _ := copyFile(t, t.TempDir(), make([]byte, 1<<20))
		var tr splice.Transfer
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		var res splice.CopyResult
		var err error
		go func() { defer close(done); res, err = tr.Copy(ctx, w, src, splice.Use(engine)) }()
		untilStill(tr.Bytes)
		cancel()
		waitCopy(t, done)
		if !errors.Is(err, context.Canceled) || res.Bytes == 0 || res.Bytes == 1<<20 {
			t.Fatalf("%+v, %v", res, err)
		}
		w.Close()
		if got, err := io.ReadAll(r); err != nil || int64(len(got)) != res.Bytes {
			t.Fatalf("%d bytes, %+v, %v", len(got), res, err)
		}
	}
}

// Descriptors that Go's poller has never seen, as inherited ones are.
func TestCopyCanceledWithoutPoller(t *testing.T) {
	for _, network := range []string{"pipe", "unix"} {
		for _, stalls := range []string{"source", "drain"} {
			t.Run(network+", "+stalls, func(t *testing.T) {
				testnet.Leaks(t)
				srcNear, srcFar := unpolled(t, network)
				dstFar, dstNear := unpolled(t, network)
				var tr splice.Transfer
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan struct{})
				var res splice.CopyResult
				var err error
				go func() { defer close(done); res, err = tr.Copy(ctx, dstNear, srcNear) }()
				if stalls == "source" {
					if _, err := io.WriteString(srcFar, "some"); err != nil {
						t.Fatal(err)
					}
					untilStill(tr.Bytes)
				} else {
					written := make(chan struct{})
					go func() {
						defer close(written)
						_, _ = srcFar.Write(make([]byte, 4<<20))
						srcFar.Close()
					}()
					t.Cleanup(func() { _, _ = io.Copy(io.Discard, srcNear); <-written })
					untilStill(tr.Bytes)
				}
				cancel()
				waitCopy(t, done)
				if !errors.Is(err, context.Canceled) || res.Reason != splice.Stopped || res.Bytes == 0 {
					t.Fatalf("%+v, %v", res, err)
				}
				dstNear.Close()
				if got, err := io.ReadAll(dstFar); err != nil || int64(len(got)) != res.Bytes {
					t.Fatalf("%d bytes, %+v, %v", len(got), res, err)
				}
			})
		}
	}
}

func TestCopyDrainGone(t *testing.T) {
	data := randomBytes(100_000)
	for _, s := range copySources[:4] {
		for _, name := range []string{"unix", "pipe"} {
			t.Run(s.name+" to "+name, func(t *testing.T) {
				testnet.Leaks(t)
				src, rest := s.open(t, data)
				var dst io.Writer
				if name == "pipe" {
					r, w := copyPipe(t)
					r.Close()
					dst = w
				} else {
					near, far := copyUnix(t, "unix")
					far.Close()
					dst = near
				}
				res, err := splice.Copy(t.Context(), dst, src)
				var e *splice.Error
				if !errors.Is(err, syscall.EPIPE) || !errors.As(err, &e) || e.Side != "target" || res.Reason != splice.ResetByDrain || res.Bytes != 0 {
					t.Fatalf("%+v, %v", res, err)
				}
				if !bytes.Equal(append(res.Undelivered, rest()...), data) {
					t.Fatal("bytes are lost")
				}
			})
		}
	}
}

func TestCopyDrainReset(t *testing.T) {
	testnet.Leaks(t)
	near, far := copyTCP(t)
	dst, peer := copyTCP(t)
	go func() {
		for err := error(nil); err == nil; {
			_, err = far.Write(make([]byte, 1<<16))
		}
	}()
	go func() {
		_, _ = io.CopyN(io.Discard, peer, 1<<20)
		_ = peer.SetLinger(0)
		peer.Close()
	}()
	res, err := splice.Copy(t.Context(), dst, near)
	near.Close()
	if res.Reason != splice.ResetByDrain || res.Bytes < 1<<20 || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Fatalf("%+v, %v", res, err)
	}
}

func TestCopySourceReset(t *testing.T) {
	testnet.Leaks(t)
	near, far := copyTCP(t)
	dst, got := copyDrains[0].open(t)
	var tr splice.Transfer
	go func() {
		_, _ = io.WriteString(far, "last words")
		for tr.Bytes() < 10 {
			time.Sleep(time.Millisecond) // a RST purges what is not read yet
		}
		_ = far.SetLinger(0)
		far.Close()
	}()
	res, err := tr.Copy(t.Context(), dst, near)
	var e *splice.Error
	if !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &e) || e.Side != "source" || res.Reason != splice.ResetBySource {
		t.Fatalf("%+v, %v", res, err)
	}
	if string(got()) != "last words" {
		t.Fatal("bytes are lost")
	}
}

func TestCopyDiskFull(t *testing.T) {
	testnet.Leaks(t)
	data := randomBytes(100_000)
	for _, s := range copySources[:4] {
		src, rest := s.open(t, data)
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		res, err := splice.Copy(t.Context(), full, src)
		full.Close()
		if !errors.Is(err, syscall.ENOSPC) || res.Reason != splice.Failed || res.Bytes != 0 {
			t.Fatalf("%s: %+v, %v", s.name, res, err)
		}
		if !bytes.Equal(append(res.Undelivered, rest()...), data) {
			t.Fatalf("%s: bytes are lost", s.name)
		}
	}
}

// splice(2) stops at an urgent mark for ever; recv(2) goes on.
func TestCopyUrgentData(t *testing.T) {
	for _, inline := range []bool{false, true} {
		for _, d := range copyDrains[:4] {
			t.Run(fmt.Sprintf("%s, inline %v", d.name, inline), func(t *testing.T) {
				testnet.Leaks(t)
				src, far := copyTCP(t)
				want := "before, after"
				if inline {
					want = "before,! after"
					onSocket(t, src, func(fd int) error {
						return syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_OOBINLINE, 1)
					})
				}
				if _, err := io.WriteString(far, "before,"); err != nil {
					t.Fatal(err)
				}
				onSocket(t, far, func(fd int) error { return syscall.Sendto(fd, []byte("!"), syscall.MSG_OOB, nil) })
				if _, err := io.WriteString(far, " after"); err != nil {
					t.Fatal(err)
				}
				// The FIN too: then splice(2) calls the mark the end.
				if err := far.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				dst, got := d.open(t)
				res, err := splice.Copy(t.Context(), dst, src)
				if err != nil || res.Reason != splice.EOF {
					t.Fatalf("%+v, %v", res, err)
				}
				if g := string(got()); g != want {
					t.Fatalf("%q, want %q", g, want)
				}
				if res.Method != splice.MethodReadWrite || res.Why != splice.CopyWhyBlind {
					t.Errorf("by %s (%s)", res.Method, res.Why)
				}
			})
		}
	}
}

// Somebody else's sockmap holds the socket, with a verdict that lets pass.
func TestCopyFromASocketInASockmap(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	data := randomBytes(300_000)
	for _, d := range copyDrains {
		t.Run(d.name, func(t *testing.T) {
			testnet.Leaks(t)
			src, far := copyTCP(t)
			testnet.NewSockmap(t, ebpf.SockMap, "skb-pass").Put(1, src)
			feed(t, src, far, data)
			dst, got := d.open(t)
			res, err := splice.Copy(t.Context(), dst, src)
			if err != nil || !bytes.Equal(got(), data) {
				t.Fatalf("%+v, %v", res, err)
			}
			if d.name != "append" && d.name != "writer" && (res.Method != splice.MethodReadWrite || res.Why != splice.CopyWhyBlind) {
				t.Errorf("by %s (%s)", res.Method, res.Why)
			}
		})
	}
}

func TestCopyDatagrams(t *testing.T) {
	testnet.Leaks(t)
	src, far := copyUnix(t, "unixgram")
	for _, m := range []string{"one", "two"} {
		if _, err := io.WriteString(far, m); err != nil {
			t.Fatal(err)
		}
	}
	var dst bytes.Buffer
	res, err := splice.Copy(t.Context(), &dst, src, splice.MaxBytes(6, 0))
	if err != nil || dst.String() != "onetwo" || res.Why != splice.CopyWhyNotAStream {
		t.Fatalf("%q %+v, %v", dst.String(), res, err)
	}
}

func TestCopyPipeIntoItself(t *testing.T) {
	r, w := copyPipe(t)
	if _, err := splice.Copy(t.Context(), w, r); !errors.Is(err, syscall.EINVAL) {
		t.Fatal(err)
	}
}

func TestCopyClosedDescriptor(t *testing.T) {
	near, _ := copyTCP(t)
	near.Close()
	var e *splice.Error
	_, err := splice.Copy(t.Context(), io.Discard, near)
	if !errors.Is(err, syscall.EBADF) || !errors.Is(err, net.ErrClosed) || !errors.As(err, &e) || e.Side != "source" {
		t.Fatal(err)
	}
	if _, err = splice.Copy(t.Context(), near, bytes.NewReader(nil)); !errors.Is(err, syscall.EBADF) || !errors.As(err, &e) || e.Side != "target" {
		t.Fatal(err)
	}
}

func BenchmarkCopy(b *testing.B) {
	data := make([]byte, 64<<20)
	for _, pair := range [][2]int{{0, 0}, {0, 2}, {0, 3}, {2, 0}, {3, 0}, {3, 3}, {3, 4}} {
		s, d := copySources[pair[0]], copyDrains[pair[1]]
		for _, how := range []string{"splice.Copy", "io.Copy"} {
			b.Run(s.name+" to "+d.name+"/"+how, func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				for range b.N {
					b.StopTimer()
					src, _ := s.open(b, data)
					dst, got := d.open(b)
					b.StartTimer()
					var err error
					if how == "io.Copy" {
						_, err = io.Copy(dst, src)
					} else {
						_, err = splice.Copy(b.Context(), dst, src)
					}
					b.StopTimer()
					if err != nil || len(got()) != len(data) {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		}
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func copyTCP(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if far, err = net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	if near, err = ln.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func copyUnix(t testing.TB, network string) (near, far *net.UnixConn) {
	t.Helper()
	typ := syscall.SOCK_STREAM
	if network == "unixgram" {
		typ = syscall.SOCK_DGRAM
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, typ|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
	}
	t.Cleanup(func() { conns[0].Close(); conns[1].Close() })
	return conns[0], conns[1]
}

func copyPipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// unpolled returns two blocking ends; r is to be read and w to be written.
func unpolled(t testing.TB, network string) (r, w *os.File) {
	t.Helper()
	var fds [2]int
	var err error
	if network == "pipe" {
		err = syscall.Pipe2(fds[:], syscall.O_CLOEXEC)
	} else {
		fds, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// copyFile returns a file with data, and what reads its rest.
func copyFile(t testing.TB, dir string, data []byte) (io.Reader, func() []byte) {
	t.Helper()
	name := filepath.Join(dir, "src")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, func() []byte { b, _ := io.ReadAll(f); return b }
}

// copyTarget returns a new file, and what reads all of it.
func copyTarget(t testing.TB, dir string, flags int) (io.Writer, func() []byte) {
	t.Helper()
	name := filepath.Join(dir, "dst")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, func() []byte { b, _ := os.ReadFile(name); return b }
}

// copyTmpfs returns a directory of another file system than t.TempDir.
func copyTmpfs(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "copy")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var here, there syscall.Stat_t
	if err := errors.Join(syscall.Stat(dir, &here), syscall.Stat(t.TempDir(), &there)); err != nil {
		t.Fatal(err)
	}
	if here.Dev == there.Dev {
		t.Skip("/dev/shm and the temporary directory are one file system")
	}
	return dir
}

// feed writes data to far, ends it, and returns what reads the rest from near.
func feed(t testing.TB, near io.ReadCloser, far io.WriteCloser, data []byte) func() []byte {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = far.Write(data)
		closeWriter(far)
	}()
	t.Cleanup(func() { near.Close(); <-done })
	return func() []byte { b, _ := io.ReadAll(near); return b }
}

// collect reads far, and returns what ends near and returns all that was read.
func collect(near io.Closer, far io.Reader) func() []byte {
	all := make(chan []byte, 1)
	go func() { b, _ := io.ReadAll(far); all <- b }()
	return func() []byte { closeWriter(near); return <-all }
}

func closeWriter(c io.Closer) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
		return
	}
	_ = c.Close()
}

// stalled returns a drain that nobody reads until got is called.
func stalled(t testing.TB, name string) (dst io.Writer, got func() []byte) {
	var near io.WriteCloser
	var far io.Reader
	switch name {
	case "tcp":
		n, f := copyTCP(t)
		if err := errors.Join(n.SetWriteBuffer(1<<16), f.SetReadBuffer(1<<16)); err != nil {
			t.Fatal(err)
		}
		near, far = n, f
	case "unix":
		near, far = copyUnix(t, "unix")
	default:
		far, near = copyPipe(t)
	}
	return near, func() []byte { return collect(near, far)() }
}

// untilStill returns when count has grown and does so no more.
func untilStill(count func() int64) {
	const pause, pauses = 10 * time.Millisecond, 10
	for last, still := int64(0), 0; still < pauses; time.Sleep(pause) {
		if n := count(); n == 0 || n != last {
			last, still = n, 0
		} else {
			still++
		}
	}
}

func waitCopy(t testing.TB, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(copyPatience):
		t.Fatal("the copy goes on")
	}
}

func onSocket(t testing.TB, v any, f func(fd int) error) {
	t.Helper()
	raw, err := v.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := errors.Join(raw.Control(func(fd uintptr) { inner = f(int(fd)) }), inner); err != nil {
		t.Fatal(err)
	}
}

func setBlocking(t testing.TB, v any) {
	t.Helper()
	if f, ok := v.(*os.File); ok {
		f.Fd()
		return
	}
	onSocket(t, v, func(fd int) error { return syscall.SetNonblock(fd, false) })
}
