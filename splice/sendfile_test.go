package splice_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// connPair returns the two ends of a connection.
func connPair(t *testing.T, network string) (a, b net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func randomFile(t *testing.T, n int) (*os.File, []byte) {
	t.Helper()
	content := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(content)
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f, content
}

// readAll reads a connection to its end in a goroutine.
func readAll(conn net.Conn) <-chan []byte {
	got := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(conn)
		got <- b
	}()
	return got
}

func TestSendFileSendsHeadersBodyAndTrailers(t *testing.T) {
	file, content := randomFile(t, 3<<20+123)
	for _, network := range []string{"tcp", "unix", "pipe"} {
		for _, c := range []struct{ offset, n int64 }{
			{0, 0}, {5, 0}, {4096, 100_000}, {int64(len(content)), 0}, {0, int64(len(content))}, {1, 1},
		} {
			var a, b net.Conn
			if network == "pipe" {
				a, b = net.Pipe() // no descriptor: read and written
			} else {
				a, b = connPair(t, network)
			}
			got := readAll(b)
			if _, err := file.Seek(7, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			ht := splice.HeaderTrailer{
				Headers: [][]byte{[]byte("first "), []byte("second ")}, Trailers: [][]byte{[]byte(" end")},
			}
			n, err := splice.SendFile(t.Context(), a, file, c.offset, c.n, ht)
			a.Close()
			end := int64(len(content))
			if c.n > 0 {
				end = c.offset + c.n
			}
			want := "first second " + string(content[c.offset:end]) + " end"
			if b := <-got; err != nil || string(b) != want || n != int64(len(want)) {
				t.Errorf("%s %+v: sent %d, received %d of %d, equal %v, %v", network, c, n, len(b), len(want), string(b) == want, err)
			}
			if at, _ := file.Seek(0, io.SeekCurrent); at != 7 {
				t.Errorf("%s: the file's offset has moved to %d", network, at)
			}
			if len(ht.Headers) != 2 || len(ht.Headers[0]) != 6 {
				t.Errorf("%s: the caller's headers were consumed", network)
			}
			b.Close()
		}
	}
}

func TestSendFileOfAFileThatIsTooShort(t *testing.T) {
	file, content := randomFile(t, 10_000)
	a, b := connPair(t, "tcp")
	got := readAll(b)
	n, err := splice.SendFile(t.Context(), a, file, 1000, 20_000, splice.HeaderTrailer{Trailers: [][]byte{[]byte("never")}})
	a.Close()
	if !errors.Is(err, io.ErrUnexpectedEOF) || n != 9000 {
		t.Errorf("sent %d, %v; want 9000 and an unexpected EOF", n, err)
	}
	if b := <-got; !bytes.Equal(b, content[1000:]) {
		t.Errorf("received %d bytes, want the 9000 that are there and no trailer", len(b))
	}
}

// The file is cut while the peer does not read: the call ends with what was
// sent before.
func TestSendFileOfAFileThatShrinks(t *testing.T) {
	const size = 64 << 20
	file, _ := randomFile(t, 0)
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	a, b := connPair(t, "tcp")
	type answer struct {
		n   int64
		err error
	}
	done := make(chan answer, 1)
	go func() {
		n, err := splice.SendFile(context.Background(), a, file, 0, 0, splice.HeaderTrailer{})
		a.Close()
		done <- answer{n, err}
	}()
	// One byte here means that the call is under way; the socket's buffers are
	// far smaller than the file, so it can't have ended.
	first := make([]byte, 1)
	if _, err := io.ReadFull(b, first); err != nil {
		t.Fatal(err)
	}
	if err := file.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	got := <-done
	if !errors.Is(got.err, io.ErrUnexpectedEOF) || got.n != int64(len(rest))+1 || got.n >= size {
		t.Errorf("sent %d, received %d, %v; want the same below %d, and an unexpected EOF", got.n, len(rest)+1, got.err, size)
	}
}

func TestSendFileFailures(t *testing.T) {
	file, _ := randomFile(t, 32<<20)
	t.Run("bad arguments", func(t *testing.T) {
		a, _ := connPair(t, "tcp")
		for _, c := range [][2]int64{{-1, 0}, {0, -1}, {1, 1<<63 - 1}} {
			if n, err := splice.SendFile(t.Context(), a, file, c[0], c[1], splice.HeaderTrailer{}); err == nil || n != 0 {
				t.Errorf("%v: sent %d, %v", c, n, err)
			}
		}
	})
	t.Run("canceled while the peer does not read", func(t *testing.T) {
		a, b := connPair(t, "tcp")
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("no more")
		go func() {
			// The first byte says that the call is under way; the rest of the
			// file is more than the socket's buffers hold.
			_, _ = io.ReadFull(b, make([]byte, 1))
			cancel(cause)
		}()
		n, err := splice.SendFile(ctx, a, file, 0, 0, splice.HeaderTrailer{})
		if !errors.Is(err, cause) || n == 0 || n >= 32<<20 {
			t.Errorf("sent %d, %v", n, err)
		}
		// The connection's own deadline is free again.
		if err := a.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Error(err)
		}
	})
	t.Run("canceled before", func(t *testing.T) {
		a, _ := connPair(t, "tcp")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := splice.SendFile(ctx, a, file, 0, 0, splice.HeaderTrailer{}); !errors.Is(err, context.Canceled) || n != 0 {
			t.Errorf("sent %d, %v", n, err)
		}
	})
	t.Run("the peer is gone", func(t *testing.T) {
		a, b := connPair(t, "tcp")
		_ = b.(*net.TCPConn).SetLinger(0)
		b.Close()
		_, err := splice.SendFile(t.Context(), a, file, 0, 0, splice.HeaderTrailer{})
		var e *splice.Error
		if !errors.As(err, &e) || e.Side != "target" {
			t.Errorf("%v; want an error of the target", err)
		}
	})
	t.Run("a closed file", func(t *testing.T) {
		a, _ := connPair(t, "tcp")
		closed, _ := randomFile(t, 10)
		closed.Close()
		if _, err := splice.SendFile(t.Context(), a, closed, 0, 1, splice.HeaderTrailer{}); !errors.Is(err, syscall.EBADF) {
			t.Errorf("%v; want that the file is closed", err)
		}
	})
}

func TestSendFileOfMoreThanTwoGiB(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 2 GiB")
	}
	file, _ := randomFile(t, 0)
	const size = 2<<30 + 5
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	tail := []byte("tail!")
	if _, err := file.WriteAt(tail, size-5); err != nil {
		t.Fatal(err)
	}
	a, b := connPair(t, "unix")
	sum := make(chan int64, 1)
	last := make([]byte, 0, 5)
	go func() {
		buf := make([]byte, 1<<20)
		var n int64
		for {
			m, err := b.Read(buf)
			n += int64(m)
			last = append(last, buf[max(0, m-5):m]...)
			last = last[max(0, len(last)-5):]
			if err != nil {
				break
			}
		}
		sum <- n
	}()
	n, err := splice.SendFile(t.Context(), a, file, 0, 0, splice.HeaderTrailer{})
	a.Close()
	if got := <-sum; err != nil || n != size || got != size || !bytes.Equal(last, tail) {
		t.Errorf("sent %d, received %d ending in %q, %v", n, got, last, err)
	}
}

// A socket that keeps message boundaries would cut the stream, or refuse it in
// the middle.
func TestSendFileRefusesDatagrams(t *testing.T) {
	file, _ := randomFile(t, 100)
	conn, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n, err := splice.SendFile(t.Context(), conn, file, 0, 0, splice.HeaderTrailer{Headers: [][]byte{[]byte("header")}})
	if n != 0 || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("sent %d, %v", n, err)
	}
}
