package engine

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

func dialTo(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func resetConn(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// ends returns two connected descriptors, which nobody else has, and their
// peers.
func ends(t *testing.T) (fds [2]int, peers [2]*net.TCPConn) {
	t.Helper()
	for i := range fds {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		peers[i] = dialTo(t, ln.Addr().String())
		if err := peers[i].SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if cerr := raw.Control(func(fd uintptr) { fds[i], err = sys.Dup(int(fd)) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
	}
	return fds, peers
}

// The kernel goes on counting unacknowledged bytes after a RST; nobody will
// acknowledge them.
func TestAbortDoesNotWaitForTheDead(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	h := newRecorder()
	_, addr := accept(t, "tcp4", "127.0.0.1:0", h, nil, target(t, ln.Addr().String()))
	client := dialTo(t, addr) // reads nothing
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	<-h.connected
	// More than the client's receive buffer takes.
	if err := server.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(server, zeros{}); !errors.Is(err, syscall.EAGAIN) && err == nil {
		t.Fatal("the sender was not stopped")
	}
	resetConn(t, server)
	resetConn(t, client)
	select {
	case <-h.ended:
	case <-time.After(patience):
		t.Fatal("the session waits for a peer that is gone")
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// A target that answers and resets at once was reached: its bytes count.
func TestDialDeliversWhatCameBeforeAReset(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "banner")
			// The RST must not overtake what it follows.
			raw, _ := c.(*net.TCPConn).SyscallConn()
			for n := 1; n > 0; {
				_ = raw.Control(func(fd uintptr) { n, _ = sys.Unacked(int(fd)) })
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	defer func() { ln.Close(); <-done }()
	h := newRecorder()
	_, addr := accept(t, "tcp4", "127.0.0.1:0", h, nil, target(t, ln.Addr().String()))
	for i := range 200 {
		c, err := net.Dial("tcp4", addr)
		if err == nil {
			var b []byte
			if b, err = io.ReadAll(c); string(b) != "banner" {
				t.Fatalf("connection %d: %q, %v", i, b, err)
			}
			c.Close()
		} // else the reset was there before Dial was done
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("connection %d: %v", i, err)
		}
		<-h.connected
		if r := <-h.ended; r.BToA.Reason != ResetBySource || r.BToA.Bytes != 6 {
			t.Fatalf("connection %d: %+v", i, r.BToA)
		}
	}
}

// A unix listener whose queue is full is waited for.
func TestDialWaitsForAUnixBacklog(t *testing.T) {
	path := t.TempDir() + "/s"
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	h := newRecorder()
	_, addr := accept(t, "tcp4", "127.0.0.1:0", h, nil, target(t, "unix:"+path))
	const clients = 5
	for range clients {
		dialTo(t, addr)
	}
	<-h.connected // the one that the queue has room for
	for range clients {
		c, _, err := syscall.Accept(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(c)
	}
	for range clients - 1 {
		select {
		case <-h.connected:
		case err := <-h.failed:
			t.Fatal(err)
		}
	}
}

// An end without the sender's consent is no clean end.
func TestLifetimeIsNoCleanEnd(t *testing.T) {
	for range 10 {
		fds, peers := ends(t)
		if _, err := new(Reactor).Start(Spec{
			A: fds[0], B: fds[1], Own: true, Limits: Limits{Lifetime: 20 * time.Millisecond},
		}); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(peers[0], zeros{}) }()
		if _, err := io.Copy(io.Discard, peers[1]); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("a stream was cut with %v", err)
		}
	}
}
