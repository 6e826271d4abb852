package splice_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// sendfile(2) on a socket in blocking mode waits for a peer that does not read,
// and no deadline ends that.
func TestSendFileOnASocketInBlockingMode(t *testing.T) {
	testnet.Leaks(t)
	file, content := randomFile(t, 32<<20)
	near, far := copyTCP(t)
	setBlocking(t, near)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the cause")
	ht := splice.HeaderTrailer{Headers: [][]byte{[]byte("first"), nil, []byte(" second")}}
	type end struct {
		n   int64
		err error
	}
	ended := make(chan end, 1)
	go func() {
		n, err := splice.SendFile(ctx, near, file, 3, 0, ht)
		ended <- end{n, err}
	}()
	// Something has arrived, and nobody reads more.
	if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel(cause)
	select {
	case e := <-ended:
		got := collect(near, far)()
		want := append([]byte("irst second"), content[3:]...)
		if !errors.Is(e.err, cause) || int64(len(got)) != e.n-1 || !bytes.Equal(got, want[:len(got)]) {
			t.Fatalf("sent %d, received %d, %v", e.n, len(got)+1, e.err)
		}
	case <-time.After(copyPatience):
		far.Close()
		t.Fatal("the call goes on")
	}
}

// Of these the size is not what reading gives.
func TestSendFileOfFilesWithoutATrueSize(t *testing.T) {
	for _, name := range []string{"/sys/kernel/mm/transparent_hugepage/enabled", "/proc/version", "/dev/null"} {
		file, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		want, _ := os.ReadFile(name)
		near, far := copyTCP(t)
		got := collect(near, far)
		n, err := splice.SendFile(t.Context(), near, file, 0, 0, splice.HeaderTrailer{Trailers: [][]byte{[]byte("end")}})
		if b := got(); err != nil || string(b) != string(want)+"end" || n != int64(len(b)) {
			t.Errorf("%s: sent %d, %q, %v", name, n, b, err)
		}
	}
}

// A pipe has no offsets, which is no fault of the connection.
func TestSendFileOfAPipe(t *testing.T) {
	r, w := copyPipe(t)
	if _, err := w.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	near, _ := copyTCP(t)
	for _, n := range []int64{0, 1} {
		sent, err := splice.SendFile(t.Context(), near, r, 0, n, splice.HeaderTrailer{})
		var e *splice.Error
		if !errors.As(err, &e) || e.Side != "source" || !errors.Is(err, syscall.ESPIPE) || sent != 0 {
			t.Errorf("n of %d: sent %d, %v", n, sent, err)
		}
	}
}

func TestSendFileRefusesUnixMessages(t *testing.T) {
	file, _ := randomFile(t, 100)
	conn, _ := copyUnix(t, "unixgram")
	if n, err := splice.SendFile(t.Context(), conn, file, 0, 0, splice.HeaderTrailer{}); n != 0 || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("sent %d, %v", n, err)
	}
}
