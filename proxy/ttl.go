package proxy

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A ttlWatch reads along what name servers answer: package net resolves, with
// all its rules, and tells nobody how long the answer holds.
type ttlWatch struct {
	servers []string // to ask, in turn; none: those of the system

	mu    sync.Mutex
	turn  int
	least time.Duration // of the answers seen
	seen  bool
}

// resolver returns one whose answers are watched.
func (w *ttlWatch) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: w.dial}
}

// ttl is how long everything that was answered holds: at most the given time,
// which it is too where no name server was asked, but /etc/hosts.
func (w *ttlWatch) ttl(most time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.seen {
		return most
	}
	return min(most, w.least)
}

func (w *ttlWatch) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if len(w.servers) > 0 {
		w.mu.Lock()
		address = w.servers[w.turn%len(w.servers)]
		w.turn++
		w.mu.Unlock()
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if u, ok := c.(*net.UDPConn); ok {
		return watchedPackets{u, w}, nil
	}
	return &watchedStream{Conn: c, watch: w}, nil
}

// answer notes the TTLs of a message.
func (w *ttlWatch) answer(message []byte) {
	var p dnsmessage.Parser
	if _, err := p.Start(message); err != nil || p.SkipAllQuestions() != nil {
		return // whoever reads it will complain
	}
	for {
		h, err := p.AnswerHeader()
		if err != nil || p.SkipAnswer() != nil {
			return
		}
		ttl := time.Duration(h.TTL) * time.Second
		w.mu.Lock()
		if !w.seen || ttl < w.least {
			w.seen, w.least = true, ttl
		}
		w.mu.Unlock()
	}
}

// watchedPackets stays a net.PacketConn: package net tells by that how to talk.
type watchedPackets struct {
	*net.UDPConn
	watch *ttlWatch
}

func (c watchedPackets) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	c.watch.answer(b[:n])
	return n, err
}

// watchedStream is a connection of messages, each with its length before it.
type watchedStream struct {
	net.Conn
	watch *ttlWatch
	got   []byte
}

func (c *watchedStream) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.got = append(c.got, b[:n]...)
	for len(c.got) >= 2 {
		size := 2 + int(binary.BigEndian.Uint16(c.got))
		if len(c.got) < size {
			break
		}
		c.watch.answer(c.got[2:size])
		c.got = c.got[size:]
	}
	return n, err
}
