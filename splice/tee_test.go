package splice_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spliced-io/spliced/splice"
)

func TestTeeGivesBothEverything(t *testing.T) {
	_, content := randomFile(t, 5<<20+17)
	want := sha256.Sum256(content)
	for _, kind := range []string{"sockets", "no descriptors", "a file to append to"} {
		t.Run(kind, func(t *testing.T) {
			in, src := connPair(t, "tcp")
			go func() {
				_, _ = in.Write(content)
				in.Close()
			}()
			a, afar := connPair(t, "tcp")
			gotA := readAll(afar)
			var b io.Writer
			var second func() []byte
			var source io.Reader = src
			switch kind {
			case "sockets":
				bConn, bfar := connPair(t, "unix")
				got := readAll(bfar)
				b, second = bConn, func() []byte { bConn.Close(); return <-got }
			case "no descriptors":
				var buf bytes.Buffer
				b, second = &buf, buf.Bytes
				source = struct{ io.Reader }{src}
			default:
				name := filepath.Join(t.TempDir(), "log")
				f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				b, second = f, func() []byte { got, _ := os.ReadFile(name); return got }
			}
			ends, err := splice.Tee(t.Context(), a, b, source)
			a.Close()
			if err != nil {
				t.Fatal(err)
			}
			for i, got := range [][]byte{<-gotA, second()} {
				if sha256.Sum256(got) != want || ends[i].Bytes != int64(len(content)) || ends[i].Undelivered != nil {
					t.Errorf("target %d got %d of %d bytes, reported %d", i, len(got), len(content), ends[i].Bytes)
				}
			}
		})
	}
}

// One target is gone: the error names it, and each byte that left the source
// is with a target or among its undelivered ones.
func TestTeeAccountsForEveryByteWhenATargetFails(t *testing.T) {
	_, content := randomFile(t, 4<<20)
	in, src := connPair(t, "tcp")
	go func() {
		_, _ = in.Write(content)
		in.Close()
	}()
	a, afar := connPair(t, "tcp")
	b, bfar := connPair(t, "tcp")
	_ = bfar.(*net.TCPConn).SetLinger(0)
	bfar.Close()
	got := readAll(afar)
	ends, err := splice.Tee(t.Context(), a, b, src)
	a.Close()
	var e *splice.Error
	if !errors.As(err, &e) || e.Side != "b" {
		t.Fatalf("%v; want an error of b", err)
	}
	rest, _ := io.ReadAll(src)
	taken := len(content) - len(rest)
	if !bytes.Equal(rest, content[taken:]) {
		t.Error("what is left in the source is not the end of the stream")
	}
	if all := append(<-got, ends[0].Undelivered...); !bytes.Equal(all, content[:taken]) {
		t.Errorf("a has %d bytes delivered and undelivered, %d were taken", len(all), taken)
	}
	if n := int(ends[1].Bytes) + len(ends[1].Undelivered); n != taken {
		t.Errorf("b has %d bytes accepted and undelivered, %d were taken", n, taken)
	}
}

func TestTeeIsCanceled(t *testing.T) {
	_, src := connPair(t, "tcp")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := splice.Tee(ctx, io.Discard, io.Discard, src)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v; want the context's error", err)
	}
	if err := src.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Errorf("the connection is not given back: %v", err)
	}
}
