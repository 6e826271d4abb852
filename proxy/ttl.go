package proxy

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A ttlWatch reads along what name servers answer: package net resolves, with
// all its rules, and tells nobody how long the answer holds.
type ttlWatch struct {
	servers []string  // to ask, in turn; none: those of the system
	late    time.Time // then what was not answered is not waited for any more; zero: it is

	mu    sync.Mutex
	names map[string]answers
	turn  int
	least time.Duration // of the answers seen
	seen  bool
}

// answers are those about the addresses of one name.
type answers struct {
	answered [2]bool // for IPv6, IPv4: with addresses, or that there are none
	exists   bool
}

// family is the place of a kind of address in answers.
func family(is4 bool) int {
	if is4 {
		return 1
	}
	return 0
}

// begin forgets what was answered about names.
func (w *ttlWatch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = make(map[string]answers)
}

// unanswered says whether there is a name for whose addresses of this family nobody has an answer, though
// there was one for those of the other.
func (w *ttlWatch) unanswered(is4 bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.names {
		if a.exists && a.answered[family(!is4)] && !a.answered[family(is4)] {
			return true
		}
	}
	return false
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
	header, err := p.Start(message)
	if err != nil {
		return // whoever reads it will complain
	}
	questions, err := p.AllQuestions()
	if err != nil {
		return
	}
	w.note(header, questions)
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

// note notes that there is an answer to a question for addresses.
func (w *ttlWatch) note(header dnsmessage.Header, questions []dnsmessage.Question) {
	missing := header.RCode == dnsmessage.RCodeNameError
	if header.Truncated || len(questions) != 1 || header.RCode != dnsmessage.RCodeSuccess && !missing {
		return
	}
	q := questions[0]
	if q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeAAAA {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.names == nil {
		return
	}
	name := strings.ToLower(q.Name.String())
	a := w.names[name]
	a.answered[family(q.Type == dnsmessage.TypeA)] = true
	a.exists = a.exists || !missing
	w.names[name] = a
}

// soon is a deadline, or when nothing is waited for any more, if that is before it.
func (w *ttlWatch) soon(t time.Time) time.Time {
	if !w.late.IsZero() && (t.IsZero() || w.late.Before(t)) {
		return w.late
	}
	return t
}

// watchedPackets stays a net.PacketConn: package net tells by that how to talk.
type watchedPackets struct {
	*net.UDPConn
	watch *ttlWatch
}

func (c watchedPackets) SetDeadline(t time.Time) error { return c.UDPConn.SetDeadline(c.watch.soon(t)) }

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

func (c *watchedStream) SetDeadline(t time.Time) error { return c.Conn.SetDeadline(c.watch.soon(t)) }

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
