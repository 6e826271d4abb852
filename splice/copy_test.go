package splice_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// What any system promises; the kernel's ways are in copy_linux_test.go.

func TestCopyPlain(t *testing.T) {
	data := strings.Repeat("plain ", 100_000)
	var dst bytes.Buffer
	res, err := splice.Copy(t.Context(), &dst, strings.NewReader(data))
	if err != nil || dst.String() != data {
		t.Fatalf("%d bytes of %d, %v", dst.Len(), len(data), err)
	}
	if res.Bytes != int64(len(data)) || res.Method != splice.MethodReadWrite || res.Reason != splice.EOF || res.InKernel != 0 || res.Why == "" {
		t.Fatalf("%+v", res)
	}
}

func TestCopyLimits(t *testing.T) {
	src := strings.NewReader("cdefghij")
	var dst bytes.Buffer
	res, err := splice.Copy(t.Context(), &dst, src, splice.Prefetched([]byte("ab"), nil), splice.MaxBytes(5, 0))
	if err != nil || dst.String() != "abcde" || res.Reason != splice.Max || res.Bytes != 5 {
		t.Fatalf("%q %+v %v", dst.String(), res, err)
	}
	if rest, _ := io.ReadAll(src); string(rest) != "fghij" {
		t.Fatalf("left on the source: %q", rest)
	}
}

func TestCopyLimitBelowPrefetched(t *testing.T) {
	src := strings.NewReader("fgh")
	var dst bytes.Buffer
	res, err := splice.Copy(t.Context(), &dst, src, splice.Prefetched([]byte("abcde"), nil), splice.MaxBytes(3, 0))
	if err != nil || dst.String() != "abc" || res.Reason != splice.Max || string(res.Undelivered) != "de" || src.Len() != 3 {
		t.Fatalf("%q %+v %v", dst.String(), res, err)
	}
}

func TestCopyLimitedReader(t *testing.T) {
	src := strings.NewReader("0123456789")
	inner := &io.LimitedReader{R: src, N: 7}
	outer := &io.LimitedReader{R: inner, N: 4}
	var dst bytes.Buffer
	res, err := splice.Copy(t.Context(), &dst, outer, splice.Prefetched([]byte("pre"), nil))
	if err != nil || dst.String() != "pre0123" || res.Reason != splice.EOF || outer.N != 0 || inner.N != 3 || src.Len() != 6 {
		t.Fatalf("%q %+v %v, %d and %d left", dst.String(), res, err, outer.N, inner.N)
	}
}

func TestCopyBadArguments(t *testing.T) {
	for name, opts := range map[string][]splice.Option{
		"negative limit":  {splice.MaxBytes(-1, 0)},
		"negative idle":   {splice.IdleTimeout(-1)},
		"other direction": {splice.MaxBytes(1, 1)},
		"prefetched from": {splice.Prefetched(nil, []byte("x"))},
		"half-close":      {splice.HalfCloseTimeout(1)},
		"rate":            {splice.MaxRate(1, 0)},
		"rate back":       {splice.MaxRate(0, 1)},
		"shared":          {splice.ShareRate(splice.NewBandwidth(1), nil)},
		"shared back":     {splice.ShareRate(nil, splice.NewBandwidth(1))},
		"negative rate":   {splice.MaxRate(-1, 0)},
		"continue":        {splice.Continue(splice.Past{})},
		"wire":            {splice.Wire(splice.WirePolicy{Upgrade: true})},
		"own":             {splice.Own()},
		"on end":          {splice.OnEnd(func(splice.Result) {})},
	} {
		res, err := splice.Copy(t.Context(), io.Discard, strings.NewReader("x"), opts...)
		if !errors.Is(err, syscall.EINVAL) || res.Bytes != 0 || res.Reason != splice.Failed {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	if _, err := splice.Copy(t.Context(), nil, strings.NewReader("x")); !errors.Is(err, syscall.EINVAL) {
		t.Error(err)
	}
	for _, e := range []splice.Engine{splice.EngineSplice, splice.EngineSockmap, splice.EngineWire} {
		if _, err := splice.Copy(t.Context(), &bytes.Buffer{}, strings.NewReader("x"), splice.Use(e)); !errors.Is(err, splice.ErrEngine) {
			t.Errorf("%v: %v", e, err)
		}
	}
}

func TestCopyCanceledBefore(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the cause")
	cancel(cause)
	src := strings.NewReader("x")
	res, err := splice.Copy(ctx, io.Discard, src)
	if !errors.Is(err, cause) || res.Reason != splice.Stopped || src.Len() != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
}

func TestCopyCancelGivesTheConnectionsBack(t *testing.T) {
	testnet.Leaks(t)
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	dstNear, dstFar := net.Pipe()
	defer dstNear.Close()
	defer dstFar.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	var res splice.CopyResult
	go func() {
		var err error
		res, err = splice.Copy(ctx, dstNear, near)
		done <- err
	}()
	// Taken from the source, and not taken by the drain.
	if _, err := io.WriteString(far, "stuck"); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || res.Reason != splice.Stopped || string(res.Undelivered) != "stuck" {
		t.Fatalf("%+v, %v", res, err)
	}
	go func() { _, _ = io.WriteString(far, "more") }()
	got := make([]byte, 4)
	if _, err := io.ReadFull(near, got); err != nil || string(got) != "more" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestCopyIdleAndLifetime(t *testing.T) {
	for _, c := range []struct {
		opt    splice.Option
		reason splice.Reason
		err    error
	}{
		{splice.IdleTimeout(50 * time.Millisecond), splice.Idle, splice.ErrIdleTimeout},
		{splice.MaxLifetime(50 * time.Millisecond), splice.Lifetime, splice.ErrLifetime},
	} {
		testnet.Leaks(t)
		near, far := net.Pipe()
		var dst bytes.Buffer
		go func() { _, _ = io.WriteString(far, "x") }()
		begin := time.Now()
		res, err := splice.Copy(t.Context(), &dst, near, c.opt)
		if !errors.Is(err, c.err) || res.Reason != c.reason || dst.String() != "x" || time.Since(begin) < 50*time.Millisecond {
			t.Errorf("%+v, %v", res, err)
		}
		near.Close()
		far.Close()
	}
}

func TestCopyFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "src"), []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(filepath.Join(dir, "src"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(filepath.Join(dir, "dst"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	// At the files' own offsets, which move.
	if _, err := src.Seek(2, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := dst.WriteString("head "); err != nil {
		t.Fatal(err)
	}
	res, err := splice.Copy(t.Context(), dst, src, splice.MaxBytes(5, 0))
	if err != nil || res.Bytes != 5 || res.Reason != splice.Max {
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err := dst.WriteString(" tail"); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(src); err != nil || string(rest) != "789" {
		t.Fatalf("%q, %v", rest, err)
	}
	if got, err := os.ReadFile(dst.Name()); err != nil || string(got) != "head 23456 tail" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestCopyClosed(t *testing.T) {
	near, far := net.Pipe()
	far.Close()
	near.Close()
	if res, err := splice.Copy(t.Context(), near, strings.NewReader("x")); err == nil || string(res.Undelivered) != "x" {
		t.Fatalf("%+v, %v", res, err)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if res, err := splice.Copy(t.Context(), io.Discard, f); err == nil || res.Reason != splice.Failed {
		t.Fatalf("%+v, %v", res, err)
	}
}

func ExampleCopy() {
	var dst strings.Builder
	res, err := splice.Copy(context.Background(), &dst, strings.NewReader("hello, world"), splice.MaxBytes(5, 0))
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString(dst.String() + " by " + string(res.Method) + "\n")
	// Output: hello by read/write
}
