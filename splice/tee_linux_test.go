package splice_test

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// Descriptors that are not with Go's poller, as those of a program's standard
// input and output: they are waited for, and the wait can be ended.
func TestTeeWithoutPoller(t *testing.T) {
	data := randomBytes(3<<20 + 5)
	for _, network := range []string{"pipe", "socket"} {
		t.Run(network, func(t *testing.T) {
			testnet.Leaks(t)
			src, in := unpolled(t, network)
			rest := feed(t, src, in, data)
			aFar, a := unpolled(t, network)
			gotA := collect(a, aFar)
			b, gotB := copyTarget(t, t.TempDir(), 0)
			ends, err := splice.Tee(t.Context(), a, b, src)
			if err != nil || !bytes.Equal(gotA(), data) || !bytes.Equal(gotB(), data) || len(rest()) != 0 {
				t.Errorf("%+v, %v", ends, err)
			}
			// A socket in blocking mode would hold splice(2).
			if want := network == "pipe"; want != (ends[1].InKernel == int64(len(data))) {
				t.Errorf("%d bytes in the kernel", ends[1].InKernel)
			}
		})
		t.Run(network+" canceled", func(t *testing.T) {
			testnet.Leaks(t)
			src, in := unpolled(t, network)
			if _, err := in.WriteString("abc"); err != nil {
				t.Fatal(err)
			}
			aFar, a := unpolled(t, network)
			b, _ := copyTarget(t, t.TempDir(), 0)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				_, _ = aFar.Read(make([]byte, 3)) // they have arrived: now it waits for more
				cancel()
			}()
			ends, err := splice.Tee(ctx, a, b, src)
			if !errors.Is(err, context.Canceled) || ends[0].Bytes != 3 {
				t.Errorf("%+v, %v", ends, err)
			}
		})
	}
}

func TestTeePipeIntoItself(t *testing.T) {
	r, w := copyPipe(t)
	b, _ := copyTarget(t, t.TempDir(), 0)
	_, err := splice.Tee(t.Context(), b, w, r)
	var e *splice.Error
	if !errors.Is(err, syscall.EINVAL) || !errors.As(err, &e) || e.Side != "b" {
		t.Errorf("%v; want EINVAL of b", err)
	}
}
