package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// hallRoom is how many connections those who ask at one address may have: half of them may
// watch. Descriptors are for clients and servers.
const hallRoom = 64

// A hall is a listener of those who ask, with room for so many connections; further ones
// wait in the kernel's queue. When it is full, one has to leave that was answered and asks
// nothing, or else has not asked anything yet: of these the first that has come from where most of
// them are. So nobody is kept out by a crowd that has nothing to ask, least of all who comes from
// somewhere else. The server has to be told of it: see [inHall].
type hall struct {
	net.Listener
	room   chan struct{} // has one for each connection, and for the one that is waited for
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	full  bool // somebody waits for room
	come  uint64
	idle  map[*asker]struct{} // were answered
	fresh map[*asker]struct{} // have not asked yet
}

func newHall(ln net.Listener) *hall {
	return &hall{
		Listener: ln, room: make(chan struct{}, hallRoom), closed: make(chan struct{}),
		idle: make(map[*asker]struct{}), fresh: make(map[*asker]struct{}),
	}
}

// Accept waits for room, and then for a connection.
func (h *hall) Accept() (net.Conn, error) {
	select {
	case h.room <- struct{}{}:
	default:
		h.fill()
		select {
		case h.room <- struct{}{}:
			h.mu.Lock()
			h.full = false
			h.mu.Unlock()
		case <-h.closed:
			return nil, net.ErrClosed
		}
	}
	c, err := h.Listener.Accept()
	if err != nil {
		<-h.room
		return nil, err
	}
	a := &asker{Conn: c, hall: h}
	if at, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		a.from = at.IP.String()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.come++
	a.number = h.come
	h.fresh[a] = struct{}{}
	return a, nil
}

// fill has one leave, now or as soon as there is one that can.
func (h *hall) fill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.full = true
	for a := range h.idle {
		h.send(a)
		return
	}
	if a := h.crowding(); a != nil {
		h.send(a)
	}
}

// crowding is the first that has come, of those that have not asked yet and are where most of them
// are; nil: there are none. h.mu is held.
func (h *hall) crowding() (first *asker) {
	from := make(map[string]int)
	for a := range h.fresh {
		from[a.from]++
	}
	for a := range h.fresh {
		if first == nil || from[a.from] > from[first.from] || from[a.from] == from[first.from] && a.number < first.number {
			first = a
		}
	}
	return first
}

// send has one leave. h.mu is held.
func (h *hall) send(a *asker) {
	delete(h.idle, a)
	delete(h.fresh, a)
	_ = a.Close()
}

// asks notes that one has asked: it is answered, whoever comes.
func (h *hall) asks(a *asker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.fresh, a)
}

// inHall has a server tell the halls that it serves what their connections do.
func inHall(s *http.Server) {
	type key struct{}
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, key{}, c) }
	answer := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a, ok := r.Context().Value(key{}).(*asker); ok {
			a.hall.asks(a)
		}
		answer.ServeHTTP(w, r)
	})
	s.ConnState = tellHall
}

func tellHall(c net.Conn, state http.ConnState) {
	a, ok := c.(*asker)
	if !ok {
		return
	}
	h := a.hall
	h.mu.Lock()
	defer h.mu.Unlock()
	switch state {
	case http.StateIdle:
		if h.full {
			h.send(a)
			return
		}
		h.idle[a] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(h.fresh, a)
		delete(h.idle, a)
	default:
		delete(h.idle, a)
	}
}

// awaitQuestions waits, until then at the latest, for those to ask who have come.
func (h *hall) awaitQuestions(late time.Time) {
	for h.unasked() && time.Now().Before(late) {
		time.Sleep(time.Millisecond)
	}
}

func (h *hall) unasked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.fresh) > 0
}

func (h *hall) Close() error {
	h.once.Do(func() { close(h.closed) })
	return h.Listener.Close()
}

// An asker is a connection in a hall.
type asker struct {
	net.Conn
	hall   *hall
	from   string // the client's address; "" of a unix socket
	number uint64 // in the order in which they have come
	once   sync.Once
}

func (a *asker) Close() error {
	a.once.Do(func() { <-a.hall.room })
	return a.Conn.Close()
}

// CloseWrite is for package net/http: who has sent more than it takes is to read why.
func (a *asker) CloseWrite() error {
	if c, ok := a.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
