package engine

import (
	"fmt"
	"math"

	"github.com/spliced-io/spliced/internal/sys"
)

// seats are the places, by epoll data, of held connections that a loop listens to for
// their holders. The loop alone gives them away; they are given back by anybody. The
// loop's lock is held.
type seats struct {
	list []seat
	free []int32
}

// A seat's turn changes with each holder, as a slot's does.
type seat struct {
	said func(gone bool) // nil: nobody's
	turn int32
}

const (
	// firstSeat is the epoll data of the first seat; the others' are above it.
	firstSeat = math.MinInt32
	// lastSeat is above that of all seats, and below that of all acceptors.
	lastSeat = -1 << 30
)

func (s *seats) taken() int { return len(s.list) - len(s.free) }

func (s *seats) take(said func(gone bool)) (i, turn int32) {
	if n := len(s.free); n > 0 {
		i = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		i = int32(len(s.list))
		s.list = append(s.list, seat{})
	}
	s.list[i].said = said
	return i, s.list[i].turn
}

func (s *seats) leave(i int32) {
	s.list[i].said = nil
	s.list[i].turn++
	s.free = append(s.free, i)
}

// Listen has the loop call said when the client has said something, also for what it has
// said already; and, with gone, when it says nothing any more. It is to be called once at
// most, within [Way.Hold], which the loop waits for. Go, Deafen and Reset end it, on any
// goroutine: said may be running by then, or about to.
func (h *Held) Listen(said func(gone bool)) error {
	l := h.loop
	l.mu.Lock()
	seat, turn := l.seats.take(said)
	l.mu.Unlock()
	if err := sys.EpollAddEdge(l.ep, h.FD, firstSeat+seat, turn, false); err != nil {
		l.vacate(seat)
		return fmt.Errorf("epoll_ctl: %w", err) // ENOMEM, ENOSPC (fs.epoll.max_user_watches)
	}
	h.seat, h.seated = seat, true
	return nil
}

// Deafen has the loop listen to the client no more.
func (h *Held) Deafen() {
	if h.seated {
		h.seated = false
		_ = sys.EpollDel(h.loop.ep, h.FD)
		h.loop.vacate(h.seat)
	}
}

// Reset closes the connection with a RST, which wakes no loop.
func (h *Held) Reset() {
	h.Deafen()
	_ = sys.Disconnect(h.FD)
	_ = sys.Close(h.FD)
}

func (l *loop) vacate(seat int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seats.leave(seat)
}

// said is told of an event of a held connection.
func (l *loop) said(ev *sys.EpollEvent) {
	l.mu.Lock()
	seat := l.seats.list[ev.Fd-firstSeat]
	l.mu.Unlock()
	if seat.said != nil && seat.turn == ev.Pad { // else of a connection that was here before
		seat.said(ev.Events&sys.EpollGone != 0)
	}
}
