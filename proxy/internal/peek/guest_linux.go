package peek

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/spliced-io/spliced/internal/sys"
)

// A guest is a [Guest] in its slot. Who has it in hand, or takes it out, owns need
// and low.
type guest struct {
	Guest
	room  *Room
	fd    int // stays open as long as it is waited for
	slot  int32
	turn  int32 // counts who had the slots: an event from before is not for this one
	place int   // in the clock; -1 is none
	busy  bool  // somebody has it in hand: nobody else may take it out
	need  int   // bytes for the next look
	low   int   // what SO_RCVLOWAT was set to; 0 is that it was not
}

// said is told by the event loop of a held connection.
func (g *guest) said(gone bool) {
	r := g.room
	if !r.take(g) {
		return
	}
	defer r.parting.Done()
	b := glances.Get().(*[Max]byte)
	defer glances.Put(b)
	r.look(g, b[:], gone)
}

// look shows a guest that the caller has in hand its bytes, and lets it go, or out.
func (r *Room) look(g *guest, b []byte, gone bool) {
	seen, over, err := g.show(b)
	switch {
	case err != nil || over:
	case gone: // nothing comes after that
		err = g.gone()
	default:
		err = g.await(len(seen))
	}
	r.mu.Lock()
	g.busy = false
	if err == nil && !over && r.closed {
		err = net.ErrClosed
	}
	if over || err != nil {
		r.remove(g)
	}
	r.mu.Unlock()
	switch {
	case err != nil:
		r.part(g, g.rest(b), err)
	case over:
		r.part(g, seen, nil)
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

// glances has the buffers of who looks outside of the room's goroutine.
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

// dismiss ends the waiting of one that was taken out, on any goroutine.
func (r *Room) dismiss(g *guest) {
	b := glances.Get().(*[Max]byte)
	defer glances.Put(b)
	defer r.parting.Done()
	r.part(g, g.rest(b[:]), os.ErrDeadlineExceeded)
}

// part gives the connection of a guest that was taken out back, with nothing changed but
// what it took.
func (r *Room) part(g *guest, has []byte, err error) {
	if g.Held == nil {
		_ = sys.EpollDel(r.ep, g.fd)
	}
	if g.low > 1 {
		_ = sys.SetReceiveLow(g.fd, 1) // worked before
	}
	g.Done(Outcome{Bytes: has, Err: err})
}

// rest returns what the connection has to give at the end, by way of b.
func (g *guest) rest(b []byte) []byte {
	n, _ := g.peek(b) // one that is broken has nothing
	return b[:n]
}
