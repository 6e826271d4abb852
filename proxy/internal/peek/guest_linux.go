package peek

import (
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// A guest is a [Guest] in its slot. The room's goroutine owns
// need and low.
type guest struct {
	Guest
	fd    int // stays open as long as it is waited for
	slot  int32
	turn  int32 // counts who had the slots: an event from before is not for this one
	place int   // in the clock; -1 is none
	need  int   // bytes for the next look
	low   int   // what SO_RCVLOWAT was set to; 0 is that it was not
}

// hangup are the events of a client that says nothing more.
const hangup = sys.EpollRDHup | sys.EpollHup | sys.EpollErr

// look shows a guest its bytes.
func (r *Room) look(g *guest, events uint32) {
	seen, enough, err := g.show(r.buf[:])
	switch {
	case err != nil || enough:
		r.leave(g, err)
	case events&hangup != 0: // nothing comes after that
		r.leave(g, g.gone())
	default:
		if err := g.await(len(seen)); err != nil {
			r.leave(g, err)
		}
	}
}

// show shows a guest the bytes that it has, by way of b, again as long as it takes
// some away. What it returns is in the connection still; where it was not enough,
// that is less than it needs.
func (g *guest) show(b []byte) (seen []byte, enough bool, err error) {
	for {
		n, err := g.peek(b)
		if err != nil || n < g.need {
			return b[:n], false, err
		}
		a := g.Look(b[:n])
		if err := a.check(n); err != nil {
			return b[:n], false, err
		}
		if a.Take > 0 {
			// They are there: a peek has seen them, and nobody else reads.
			if err := take(g.fd, b[:a.Take]); err != nil {
				return nil, false, err
			}
		}
		if a.Need == 0 {
			return b[a.Take:n], true, nil
		}
		g.need = a.Need
	}
}

// glances has the buffers of who looks outside the room's goroutine.
var glances = sync.Pool{New: func() any { return new([Max]byte) }}

// glance has the waiting end before it has begun for a guest that has said all by
// now, which spares the room two system calls and a change of threads. What it
// is in doubt about is left to the room.
func (g *guest) glance() bool {
	b := glances.Get().(*[Max]byte)
	defer glances.Put(b)
	seen, enough, err := g.show(b[:])
	if err != nil || !enough {
		return false
	}
	g.Done(Outcome{Bytes: seen})
	return true
}

// peek fills b with what the connection has.
func (g *guest) peek(b []byte) (n int, err error) {
	n, err = sys.Peek(g.fd, b)
	if err == syscall.EAGAIN {
		return 0, nil
	}
	return n, err
}

func take(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := sys.Recv(fd, b)
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
	}
	return nil
}

// await has the next event come when there are as many bytes as it needs, and
// not for each on the way: n are there now.
func (g *guest) await(n int) error {
	low := g.need
	if low == n+1 {
		low = 1 // what is to come is enough anyway
	}
	if low == max(g.low, 1) {
		return nil
	}
	g.low = low
	return sys.SetReceiveLow(g.fd, low)
}

// gone is why nothing comes any more.
func (g *guest) gone() error {
	err := sys.SocketError(g.fd)
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// leave ends the waiting of a guest that the room's goroutine has.
func (r *Room) leave(g *guest, err error) {
	r.mu.Lock()
	r.remove(g)
	r.mu.Unlock()
	r.part(g, r.buf[:], err)
}

// dismiss ends the waiting of one that was taken out, on any goroutine.
func (r *Room) dismiss(g *guest) {
	b := glances.Get().(*[Max]byte)
	defer glances.Put(b)
	defer r.parting.Done()
	r.part(g, b[:], os.ErrDeadlineExceeded)
}

// part gives a guest's connection back, with nothing changed but what it took.
func (r *Room) part(g *guest, b []byte, err error) {
	_ = sys.EpollDel(r.ep, g.fd)
	if g.low > 1 {
		_ = sys.SetReceiveLow(g.fd, 1) // worked before
	}
	n, _ := g.peek(b) // one that is broken has nothing to show
	g.Done(Outcome{Bytes: b[:n], Err: err})
}
