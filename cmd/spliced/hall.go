package main

import (
	"net"
	"net/http"
	"sync"
)

// hallRoom is how many connections those who ask at one address may have: half of them may
// watch. Descriptors are for clients and servers.
const hallRoom = 64

// A hall is a listener of those who ask, with room for so many connections; further ones
// wait in the kernel's queue. When it is full, those have to leave that were answered and ask
// nothing: the server's ConnState has to be [tellHall].
type hall struct {
	net.Listener
	room   chan struct{} // has one for each connection, and for the one that is waited for
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	full bool // somebody waits for room
	idle map[*asker]struct{}
}

func newHall(ln net.Listener) *hall {
	return &hall{Listener: ln, room: make(chan struct{}, hallRoom), closed: make(chan struct{}), idle: make(map[*asker]struct{})}
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
	return &asker{Conn: c, hall: h}, nil
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
}

// send has one leave. h.mu is held.
func (h *hall) send(a *asker) {
	delete(h.idle, a)
	_ = a.Close()
}

// tellHall is told by the server what its connections do.
func tellHall(c net.Conn, state http.ConnState) {
	a, ok := c.(*asker)
	if !ok {
		return
	}
	h := a.hall
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case state != http.StateIdle:
		delete(h.idle, a)
	case h.full:
		h.send(a)
	default:
		h.idle[a] = struct{}{}
	}
}

func (h *hall) Close() error {
	h.once.Do(func() { close(h.closed) })
	return h.Listener.Close()
}

// An asker is a connection in a hall.
type asker struct {
	net.Conn
	hall *hall
	once sync.Once
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
