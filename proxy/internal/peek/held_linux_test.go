package peek

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// heldKinds are connections that event loops hold.
var heldKinds = []kind{
	{"held", func(t testing.TB) (near, far net.Conn) { return heldPair(t, "tcp", "127.0.0.1:0") }},
	{"held unix", func(t testing.TB) (near, far net.Conn) {
		return heldPair(t, "unix", filepath.Join(t.TempDir(), "socket"))
	}},
}

// A heldConn is a held connection, and one of its own when that is asked for.
type heldConn struct {
	*splice.Held
	turn chan func() // what the event loop, which waits for it, has to do
	take func() net.Conn
}

func heldPair(t testing.TB, network, address string) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan *heldConn)
	f, err := splice.Forward(ln, splice.Forwarding{Accepted: func(*splice.Session, netip.AddrPort) splice.Way {
		return splice.Way{Hold: func(h *splice.Held) {
			c := &heldConn{Held: h, turn: make(chan func())}
			c.take = sync.OnceValue(func() net.Conn {
				conn, err := h.Conn()
				if err != nil {
					t.Error(err)
				}
				return conn
			})
			held <- c
			if f := <-c.turn; f != nil {
				f()
			}
		}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	far, err = net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := <-held
	t.Cleanup(func() {
		close(c.turn) // if nobody has entered
		f.Close()
		f.Wait()
		_ = far.Close()
		_ = c.Close()
	})
	return c, far
}

// enter is called once. The loop goes on after it.
func (c *heldConn) enter(r *Room, g Guest) error {
	g.Held = c.Held
	done := make(chan error)
	c.turn <- func() { done <- r.Wait(g) }
	return <-done
}

func (c *heldConn) Read(b []byte) (int, error)        { return c.take().Read(b) }
func (c *heldConn) Write(b []byte) (int, error)       { return c.take().Write(b) }
func (c *heldConn) Close() error                      { return c.take().Close() }
func (c *heldConn) LocalAddr() net.Addr               { return c.take().LocalAddr() }
func (c *heldConn) RemoteAddr() net.Addr              { return c.take().RemoteAddr() }
func (c *heldConn) SetDeadline(t time.Time) error     { return c.take().SetDeadline(t) }
func (c *heldConn) SetReadDeadline(t time.Time) error { return c.take().SetReadDeadline(t) }
func (c *heldConn) SetWriteDeadline(t time.Time) error {
	return c.take().SetWriteDeadline(t)
}

// Nobody takes a guest out while its event loop shows it what it has said: whoever wants to
// goes without, and the room's end waits for it.
func TestHeldIsInHand(t *testing.T) {
	t.Parallel()
	near, far := heldPair(t, "tcp", "127.0.0.1:0")
	r := new(Room)
	looking, goOn := make(chan struct{}), make(chan struct{})
	done := make(chan Outcome, 2)
	begun := time.Now()
	err := enter(r, Guest{
		Conn: near, Deadline: begun.Add(patience), Hurried: begun,
		Look: func(b []byte) Action {
			close(looking)
			<-goOn
			return lines(b)
		},
		Done: func(o Outcome) { done <- o },
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, far, "hal")
	<-looking
	r.Dismiss(nil, 1)
	r.Hurry(nil, 1)
	if n := r.Len(); n != 1 {
		t.Errorf("%d wait, want the one that is looked at", n)
	}
	closed := make(chan struct{})
	go func() {
		r.Close()
		close(closed)
	}()
	for !r.isClosed() {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-closed:
		t.Error("the room was closed while one was looked at")
	default:
	}
	close(goOn)
	if o := outcome(t, done); !errors.Is(o.Err, net.ErrClosed) {
		t.Errorf("error %v, want that the room was closed", o.Err)
	}
	<-closed
	far.Close()
	if b, err := io.ReadAll(near); string(b) != "hal" || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("left to read: %q, %v", b, err)
	}
}

func (r *Room) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}
