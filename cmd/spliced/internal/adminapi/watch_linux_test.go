package adminapi

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// Who watches and does not read is left when his time is over, with what was read
// until then whole.
func TestWatcherIsLeft(t *testing.T) {
	testnet.Leaks(t)
	s := newStand(t, "127.0.0.1:1")
	api := New(s.proxy, s, slog.New(slog.NewTextHandler(s.log, nil)))
	api.writeTime = 200 * time.Millisecond
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		// Those who are accepted have the same: a few snapshots fill it.
		control := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4096) })
		return errors.Join(control, err)
	}}
	ln, err := small.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := api.NewServer()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	conn, err := (&net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		control := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		return errors.Join(control, err)
	}}).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET /v1/watch?interval=100ms HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	until := func(what string, watchers int32) {
		t.Helper()
		for end := time.Now().Add(patience); api.watchers.Load() != watchers; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d watchers, want %s", api.watchers.Load(), what)
			}
		}
	}
	until("one", 1)
	until("that he is left", 0)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}
