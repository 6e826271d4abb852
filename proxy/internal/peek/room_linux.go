package peek

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
)

// A Room is where connections wait. The zero value is ready; from the first
// guest on it has two descriptors and a goroutine, until Close.
type Room struct {
	reader reader // has those without a descriptor

	mu     sync.Mutex
	closed bool
	ep     int // epoll; 0 before the first guest
	wake   int // eventfd: there is a sooner deadline, or the end
	ended  chan struct{}
	guests []*guest // by slot, nil where free
	free   []int32
	turn   int32
	clocks clocks

	// Of guests that others than the goroutine have in hand or have taken out.
	parting sync.WaitGroup

	// For the goroutine alone.
	buf [Max]byte
}

// wakeSlot is the epoll data of the eventfd.
const wakeSlot = -1

// Wait waits for a guest, and returns at once. An error means that it was not
// taken in: Done is not called then. It is called before Wait returns if all was
// said already.
func (r *Room) Wait(g Guest) error {
	var sc syscall.Conn = g.Held
	if g.Held == nil {
		var ok bool
		if sc, ok = g.Conn.(syscall.Conn); !ok {
			return r.reader.wait(g)
		}
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	in := &guest{Guest: g, room: r, place: -1, need: 1}
	if err := rc.Control(func(fd uintptr) { in.fd = int(fd) }); err != nil {
		return err
	}
	if in.glance() {
		return nil
	}
	// The first event says what is there already. That of an event loop can't come
	// before this has returned: the loop waits for it.
	if in.Held != nil {
		if err := in.Held.Listen(in.said); err != nil {
			return fmt.Errorf("peek: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.open(); err != nil {
		return err
	}
	r.enter(in)
	if in.Held == nil {
		if err := sys.EpollAddEdge(r.ep, in.fd, in.slot, in.turn, false); err != nil {
			r.remove(in)
			return fmt.Errorf("peek: epoll_ctl: %w", err)
		}
	}
	if !in.Deadline.IsZero() {
		if r.clocks.push(in) {
			_ = sys.EventfdAdd(r.wake) // EAGAIN: it is awake 2^64-2 times over
		}
	}
	return nil
}

// Hurry has n guests of those whose they are ([Guest.Of]), or of all for nil, wait no
// longer than their Hurried says, as if that was their deadline: others need their
// places. Those who would be late next go first. It takes the place of an earlier
// Hurry for the same; 0 is that nobody has to any more.
func (r *Room) Hurry(of any, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.clocks.set(of, n) && r.ep != 0 && !r.closed {
		_ = sys.EventfdAdd(r.wake) // EAGAIN: as above
	}
}

// Dismiss has up to n guests leave as Hurry would, but only those that are late already
// then, and at once: they have been told when it returns. Whoever needs their places does
// the work that way, one client at a time, and a flood comes no faster than it is sent
// away. It must not be called by a guest's function.
func (r *Room) Dismiss(of any, n int) {
	for ; n > 0; n-- {
		g := r.hurried(of)
		if g == nil {
			return
		}
		r.dismiss(g)
	}
}

// hurried takes out the guest that is the first to leave in a hurry, if it is late.
func (r *Room) hurried(of any) *guest {
	r.mu.Lock()
	defer r.mu.Unlock()
	g, at := r.clocks.soonest(of)
	if g == nil || g.busy || r.closed || time.Now().Before(at) {
		return nil
	}
	r.parting.Add(1)
	r.remove(g)
	return g
}

// Len is how many are waited for.
func (r *Room) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.guests) - len(r.free) + r.reader.len()
}

// Close ends the waiting for everybody, with [net.ErrClosed], and returns when
// all have been told. It must not be called by a guest's function.
func (r *Room) Close() {
	r.reader.close()
	r.mu.Lock()
	opened := r.ep != 0
	if !r.closed && opened {
		_ = sys.EventfdAdd(r.wake)
	}
	r.closed = true
	r.mu.Unlock()
	if opened {
		<-r.ended
	}
}

// open makes what the zero value lacks. r.mu is held.
func (r *Room) open() error {
	if r.closed {
		return net.ErrClosed
	}
	if r.ep != 0 {
		return nil
	}
	ep, err := sys.EpollCreate()
	if err != nil {
		return fmt.Errorf("peek: epoll_create1: %w", err)
	}
	wake, err := sys.Eventfd()
	if err != nil {
		_ = sys.Close(ep)
		return fmt.Errorf("peek: eventfd: %w", err)
	}
	if err := sys.EpollAddLevel(ep, wake, wakeSlot, 0); err != nil {
		_ = sys.Close(wake)
		_ = sys.Close(ep)
		return fmt.Errorf("peek: epoll_ctl: %w", err)
	}
	r.ep, r.wake, r.ended = ep, wake, make(chan struct{})
	go r.run()
	return nil
}

// enter gives a guest a slot. r.mu is held.
func (r *Room) enter(g *guest) {
	r.turn++
	g.turn = r.turn
	if n := len(r.free); n > 0 {
		g.slot = r.free[n-1]
		r.free = r.free[:n-1]
		r.guests[g.slot] = g
		return
	}
	g.slot = int32(len(r.guests))
	r.guests = append(r.guests, g)
}

// remove takes the slot back. r.mu is held.
func (r *Room) remove(g *guest) {
	r.guests[g.slot] = nil
	r.free = append(r.free, g.slot)
	if g.place >= 0 {
		r.clocks.remove(g)
	}
}

// run is the room's goroutine.
func (r *Room) run() {
	defer close(r.ended)
	events := make([]sys.EpollEvent, 128)
	for {
		g, wait, closed := r.next()
		for ; g != nil; g, wait, closed = r.next() {
			r.part(g, g.rest(r.buf[:]), os.ErrDeadlineExceeded)
		}
		if closed {
			r.clear()
			return
		}
		n, err := sys.EpollWait(r.ep, events, wait)
		if err != nil {
			// EBADF, EFAULT, EINVAL: memory or descriptors were overwritten.
			panic(fmt.Sprintf("peek: epoll_wait: %v", err))
		}
		for _, ev := range events[:n] {
			if ev.Fd == wakeSlot {
				sys.EventfdDrain(r.wake)
			} else if g := r.guest(ev.Fd, ev.Pad); g != nil && r.take(g) {
				r.look(g, r.buf[:], ev.Events&sys.EpollGone != 0)
				r.parting.Done()
			}
		}
	}
}

// guest returns who has the slot, unless the event was another's who had it before.
func (r *Room) guest(slot, turn int32) *guest {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.guests[slot]; g != nil && g.turn == turn {
		return g
	}
	return nil
}

// take puts a guest into the hands of the caller, if it is there still: it is for a look,
// and parting is done after that.
func (r *Room) take(g *guest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.guests[g.slot] != g {
		return false
	}
	g.busy = true
	r.parting.Add(1)
	return true
}

// next takes out a guest whose time is over; or, if there is none, says how long that is
// so, in milliseconds, -1 for ever; or that the room was closed.
func (r *Room) next() (g *guest, wait int, closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, 0, true
	}
	g, at := r.clocks.first()
	if g == nil {
		return nil, -1, false
	}
	if left := time.Until(at); left > 0 {
		// Rounded up: waking early would make the room spin.
		ms := (left + time.Millisecond - 1) / time.Millisecond
		return nil, int(min(ms, 1<<30)), false // epoll_wait's is an int of 32 bits
	}
	if g.busy {
		return nil, 1, false // it may have had the last word
	}
	r.clocks.left(g.Of)
	r.remove(g)
	return g, 0, false
}

// clear ends the room, which was closed. Nobody comes in any more.
func (r *Room) clear() {
	r.mu.Lock()
	var left []*guest
	for _, g := range r.guests {
		if g != nil && !g.busy {
			r.remove(g)
			left = append(left, g)
		}
	}
	r.mu.Unlock()
	for _, g := range left {
		r.part(g, g.rest(r.buf[:]), net.ErrClosed)
	}
	r.parting.Wait()
	_ = sys.Close(r.ep)
	_ = sys.Close(r.wake)
}
