package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/parcel"
	"github.com/spliced-io/spliced/splice"
)

// HandOver offers everything to the process at the other end of conn, whose
// server has it by [Inherit]. When it returns a Succession that server accepts
// the clients, and this one does not any more: what is left is to hand its
// connections over. After an error, also one of the other process or the end of ctx, all is
// as it was. conn is closed in any case, in the end.
func (s *Server) HandOver(ctx context.Context, conn *net.UnixConn, b Baggage, program string) (*Succession, error) {
	if err := s.configuring.enter(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("hand over: wait for a reload: %w", err)
	}
	defer s.configuring.leave()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	table, err := s.offer(conn, b, program)
	if err == nil && !stop() {
		err = context.Cause(ctx) // it was ready a moment too late
	}
	if err == nil {
		s.pause()
		if err = s.agree(conn, b.Last); err != nil {
			s.unpause()
		}
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("hand over: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborting {
		_ = conn.Close()
		return nil, ErrServerClosed
	}
	s.closing, s.parting = true, true
	for k := range s.sockets {
		k.file = nil // the file is the other's
		k.close()
	}
	s.change()
	return &Succession{server: s, conn: conn, departure: departure{adopts: s.has(table)}}, nil
}

// has says whether the server's instance has that table.
func (s *Server) has(table splice.WireTable) bool {
	if s.Wire.Instance == "" || table == (splice.WireTable{}) {
		return false
	}
	mine, err := splice.WireTableOf(s.Wire)
	return err == nil && mine == table // else nobody would find what is left
}

// pause accepts nobody while the other process begins to: a connection for which
// the kernel had woken this one, and which it would not take any more, would wait
// until the next one comes.
func (s *Server) pause() {
	s.mu.Lock()
	s.pausing = true
	var forwarders []*splice.Forwarder
	for k := range s.sockets {
		if k.forwarder != nil {
			forwarders = append(forwarders, k.forwarder)
		}
	}
	s.mu.Unlock()
	for _, f := range forwarders { // whose loops may be asking for the lock
		f.Pause()
	}
}

func (s *Server) unpause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pausing = false
	for k := range s.sockets {
		if !k.closed {
			k.resume()
		}
	}
}

// offer says all, and returns when the other is ready, with the table of the instance that it
// would adopt.
func (s *Server) offer(conn *net.UnixConn, b Baggage, program string) (table splice.WireTable, err error) {
	if err := s.running(); err != nil {
		return table, err
	}
	err = s.describe(conn, b, program)
	if errors.Is(err, syscall.EPIPE) {
		err = nil // it has answered, or ended
	}
	if err != nil {
		return table, err
	}
	return table, expectAnswer(conn, "ready", func(m *message) bool {
		table = m.Table
		return m.Ready
	})
}

// describe says what there is.
func (s *Server) describe(conn *net.UnixConn, b Baggage, program string) error {
	err := say(conn, message{Hello: &hello{Version: HandOverVersion, Oldest: oldestHandOver, Program: program, PID: os.Getpid()}}, nil)
	if err != nil {
		return err
	}
	if err := s.offerSockets(conn); err != nil {
		return err
	}
	r := rest{Server: s.state(), State: b.State}
	var fds []int
	for _, name := range slices.Sorted(maps.Keys(b.Files)) {
		fd, err := parcel.Descriptor(b.Files[name])
		if err != nil {
			return err
		}
		r.Files, fds = append(r.Files, name), append(fds, fd)
	}
	return say(conn, message{Rest: &r}, nil, fds...)
}

// agree has the other accept. It has answered that it does when this returns. Whatever
// operators have said until then it knows; who says something later is told to ask the other.
func (s *Server) agree(conn *net.UnixConn, last func() json.RawMessage) error {
	s.steering.Lock()
	defer s.steering.Unlock()
	s.mu.Lock()
	next, taken := s.lastID+acceptedMeanwhile, s.taken()
	s.mu.Unlock()
	_ = conn.SetDeadline(time.Now().Add(agreement))
	defer conn.SetDeadline(time.Time{})
	m := message{Go: next, Taken: taken, Latest: &serverState{Members: s.memberRecords()}}
	if last != nil {
		m.Last = last()
	}
	if err := say(conn, m, nil); err != nil {
		return err
	}
	err := expectAnswer(conn, "accepting", func(m *message) bool { return m.Going })
	s.succeeded.Store(err == nil)
	return err
}

// taken are the local ports of the connections with servers. s.mu is held.
func (s *Server) taken() (records []takenRecord) {
	ports := make(map[netip.AddrPort][]uint16)
	for c := s.live.first; c != nil; c = c.next {
		target := c.target
		if !target.IsValid() && c.member != nil {
			target = c.member.addr
		}
		if c.local.IsValid() && target.IsValid() {
			ports[target] = append(ports[target], c.local.Port())
		}
	}
	for target, list := range ports {
		records = append(records, takenRecord{target, list})
	}
	return records
}

const (
	// agreement is how long a process that was ready may take to accept.
	agreement = 10 * time.Second
	// acceptedMeanwhile is more than how many connections this process accepts so
	// long: no two have the same number.
	acceptedMeanwhile = 1 << 20
)

// expectAnswer waits for a message that is fine.
func expectAnswer(conn *net.UnixConn, what string, fine func(*message) bool) error {
	m, p, err := hear(conn)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the new process has ended before it was %s", what)
	case err != nil:
		return fmt.Errorf("the new process is not %s: %w", what, err)
	}
	p.Close()
	switch {
	case m.Refused != "":
		return fmt.Errorf("the new process refuses: %s", m.Refused)
	case !fine(m):
		return fmt.Errorf("the new process has answered something else than that it is %s", what)
	}
	return nil
}

// say sends a message to the other process.
func (m *Succession) say(msg message, raw []byte, fds ...int) error {
	err := say(m.conn, msg, raw, fds...)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		err = errors.New("the new process has ended while connections moved")
	}
	return err
}

// say sends a message.
func say(conn *net.UnixConn, m message, raw []byte, fds ...int) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return parcel.Send(conn, body, raw, fds...)
}

// hear receives one. The parcel is to be closed.
func hear(conn *net.UnixConn) (*message, *parcel.Parcel, error) {
	p, err := parcel.Receive(conn)
	if err != nil {
		return nil, nil, err
	}
	m := new(message)
	if err := json.Unmarshal(p.Body, m); err != nil {
		p.Close()
		return nil, nil, err
	}
	return m, p, nil
}

// offerSockets sends the listening sockets.
func (s *Server) offerSockets(conn *net.UnixConn) error {
	s.mu.Lock()
	sockets := make([]*socket, 0, len(s.sockets))
	for k := range s.sockets {
		if !k.closed {
			sockets = append(sockets, k)
		}
	}
	s.mu.Unlock()
	for chunk := range slices.Chunk(sockets, parcel.MaxFiles) {
		if err := s.offerChunk(conn, chunk); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) offerChunk(conn *net.UnixConn, sockets []*socket) error {
	var m message
	var fds []int
	for _, k := range sockets {
		s.mu.Lock()
		forwarder, name, path := k.forwarder, k.listener.Load().name, ""
		if k.file.there() {
			path = k.file.path
		}
		s.mu.Unlock()
		if forwarder == nil {
			return fmt.Errorf("the socket %s of listener %s has no descriptor: %w", k.addr, name, errors.ErrUnsupported)
		}
		f, err := forwarder.File()
		if err != nil {
			return fmt.Errorf("listener %s: %w", name, err)
		}
		defer f.Close()
		fd, err := parcel.Descriptor(f)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
		m.Sockets = append(m.Sockets, socketRecord{Listener: name, Address: k.key.address, Options: k.key.options, Path: path})
	}
	return say(conn, m, nil, fds...)
}

// maxDebts bounds what is told of clients that come too often, in bytes.
const maxDebts = 4 << 20

// state is what the next server is to know.
func (s *Server) state() serverState {
	s.mu.Lock()
	st := serverState{Instance: instanceRecord{Name: s.Wire.Instance, Root: s.Wire.Root}}
	listeners := s.sortedListeners()
	s.mu.Unlock()
	room := maxDebts
	for _, l := range listeners {
		if debts := l.policy.Load().rate.Debts(room); debts != nil {
			st.Rates = append(st.Rates, rateRecord{l.name, debts})
			room -= len(debts)
		}
	}
	st.Members = s.memberRecords()
	return st
}

// memberRecords has those servers of which there is something to know.
func (s *Server) memberRecords() (records []memberRecord) {
	s.mu.Lock()
	upstreams := s.sortedUpstreams()
	s.mu.Unlock()
	for _, u := range upstreams {
		u.mu.Lock()
		for _, m := range u.members {
			r := memberRecord{Upstream: u.name, Server: m.name, Draining: m.draining, Weight: m.steered, Listed: m.listed}
			switch {
			case m.down && m.lastError != nil:
				r.Down = m.lastError.Error()
			case m.checked && !m.down:
				r.Up, r.Fails = true, m.fails
			}
			m.record(&r)
			if r != (memberRecord{Upstream: u.name, Server: m.name}) {
				records = append(records, r)
			}
		}
		records = append(records, u.known...) // of which this process has not found more
		u.mu.Unlock()
	}
	return records
}

// record notes what clients have found. The upstream's lock is held.
func (m *member) record(r *memberRecord) {
	r.Ejections, r.ConnFailed, r.Resets = m.ejections, m.connFailed, m.resets
	if m.ejected {
		r.Ejected, r.EjectedFor = max(1, time.Until(m.readmitAt)), m.ejectedFor.Error()
	}
	if !m.upSince.IsZero() {
		r.UpFor = max(1, time.Since(m.upSince))
	}
}

// A Succession is what is left to do of a server whose listeners another process
// has.
type Succession struct {
	server *Server
	conn   *net.UnixConn
	departure
}

const (
	// movedAtOnce is how many connections are on their way to the other process at
	// a time: so short they stand still. A parcel has two descriptors of each.
	movedAtOnce = 64
	// movedBytes is about how many bytes of theirs go in one parcel.
	movedBytes = 8 << 20
	// moveAgain is how long connections are waited for before more are asked: what
	// the engine wire carries takes round trips.
	moveAgain = 20 * time.Millisecond
)

// Move hands the connections over, one that is still being joined as soon as it is.
// It returns when only those are left that can't be: TLS sessions that end
// here. They go on, until Close at the latest. After an error, and when ctx
// ends, so do all that were not handed over; those that are spliced under the name of an
// instance wait for whoever adopts them, if the other process lives, and are this one's again
// if it has died.
func (m *Succession) Move(ctx context.Context) (moved int, err error) {
	defer m.conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = m.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if m.adopts {
		err = m.leave()
	}
	moved, err = m.move(ctx, err)
	moved += m.Flows()
	return moved, m.depart(ctx, err)
}

// move hands over those that have sockets, or are to have some again, unless there was an
// error before.
func (m *Succession) move(ctx context.Context, before error) (moved int, err error) {
	err = before
	s := m.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for more := movedAtOnce; err == nil; {
		if len(s.parted) > 0 {
			batch := s.parted
			s.parted = nil
			s.mu.Unlock()
			var n int
			n, err = m.pass(batch)
			moved += n
			s.mu.Lock()
			continue
		}
		asked, staying := s.askToPart(more)
		if more -= len(asked); len(asked) > 0 {
			s.mu.Unlock()
			for _, session := range asked {
				session.HandOver()
			}
			s.mu.Lock()
			continue
		}
		if s.open == staying && !s.arriving || s.aborting {
			break
		}
		timer := time.NewTimer(moveAgain)
		werr := s.wait(ctx.Done(), timer.C)
		timer.Stop()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if werr != nil || len(s.parted) > 0 {
			more = movedAtOnce
		}
	}
	// Those that come now stay: see [conn.onEnd].
	s.parting = false
	late := s.parted
	s.parted = nil
	s.mu.Unlock()
	for _, p := range late {
		p.keep()
	}
	s.mu.Lock()
	return moved, err
}

// askToPart returns up to n sessions that are to be handed over, and counts those
// that can't be. s.mu is held.
func (s *Server) askToPart(n int) (asked []*splice.Session, staying int) {
	for c := s.live.first; c != nil; c = c.next {
		switch {
		case c.session == nil || c.parting:
		case !c.session.CanHandOver():
			staying++
		case len(asked) < n:
			c.parting = true
			asked = append(asked, c.session)
		}
	}
	return asked, staying
}

// A parcelled connection is one with its sockets.
type parcelled struct {
	parted
	a, b  net.Conn
	past  splice.Past
	first [2][]byte
}

// open gets the sockets; nil if the session has closed them: it was aborted.
func (p parted) open() *parcelled {
	session := p.conn.session
	<-session.Done()
	a, b, err := session.Conns()
	if err != nil {
		p.conn.conclude(p.result)
		return nil
	}
	q := &parcelled{parted: p, a: a, b: b, past: session.Past()}
	if q.past.AToB.Reason == splice.Running {
		q.first[0] = p.result.AToB.Undelivered
	}
	if q.past.BToA.Reason == splice.Running {
		q.first[1] = p.result.BToA.Undelivered
	}
	return q
}

// pass hands connections over.
func (m *Succession) pass(batch []parted) (n int, err error) {
	var load []*parcelled
	bytes := 0
	flush := func() {
		if len(load) == 0 {
			return
		}
		if err == nil {
			err = m.send(load)
		}
		if err == nil {
			n += len(load)
			for _, q := range load {
				q.gone()
			}
		} else {
			for _, q := range load {
				q.stay()
			}
		}
		load, bytes = nil, 0
	}
	for _, p := range batch {
		q := p.open()
		if q == nil {
			continue
		}
		load = append(load, q)
		if bytes += len(q.first[0]) + len(q.first[1]); len(load) == movedAtOnce || bytes >= movedBytes {
			flush()
		}
	}
	flush()
	return n, err
}

// send sends them, and returns when they have arrived.
func (m *Succession) send(load []*parcelled) error {
	var msg message
	var raw []byte
	var fds []int
	for _, q := range load {
		for _, c := range []net.Conn{q.a, q.b} {
			fd, err := parcel.Descriptor(c)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
		}
		msg.Conns = append(msg.Conns, q.record())
		raw = append(append(raw, q.first[0]...), q.first[1]...)
	}
	if err := m.say(msg, raw, fds...); err != nil {
		return err
	}
	return expectAnswer(m.conn, "taking connections over", func(m *message) bool { return m.Got })
}

func (q *parcelled) record() connRecord {
	c := q.conn
	return connRecord{
		ID: c.id, Listener: c.listener.name, Route: c.route.name, Upstream: c.upstreamName(),
		Server: c.member.name, Dial: [2]string{c.member.dial.Network, c.member.dial.Address},
		Client: c.client, Target: c.target, Local: c.local, SNI: c.sni, Counted: c.counted,
		Age: time.Since(c.began), Past: q.past, First: [2]int{len(q.first[0]), len(q.first[1])},
	}
}

// gone forgets a connection that another process has.
func (q *parcelled) gone() {
	_ = q.a.Close()
	_ = q.b.Close()
	c := q.conn
	s := c.listener.server
	s.mu.Lock()
	s.open--
	s.arrived(c)
	s.keepCounts(c, q.result.Stats)
	c.listener.release(c)
	s.change()
	s.mu.Unlock()
	c.member.leave()
}

// stay has a connection go on here.
func (q *parcelled) stay() {
	c := q.conn
	if err := c.resume(q.a, q.b, c.route.plan, q.past, q.first); err != nil {
		reset(q.a)
		reset(q.b)
		c.conclude(q.result)
	}
}

// keep has a connection go on here that has come too late.
func (p parted) keep() {
	if q := p.open(); q != nil {
		q.stay()
	}
}

// resume begins another session of a connection that had one.
func (c *conn) resume(a, b io.ReadWriteCloser, plan *splice.Plan, past splice.Past, first [2][]byte) error {
	s := c.listener.server
	s.mu.Lock()
	if s.aborting {
		s.mu.Unlock()
		return ErrServerClosed
	}
	c.parting = false
	s.live.push(c)
	s.departs(c, c.member.dial.Network == original, c.local)
	s.mu.Unlock()
	var options []splice.Option
	if plan != nil {
		options = append(options, splice.Follow(plan))
	}
	options = append(options, splice.Own(), splice.OnEnd(c.onEnd), splice.OnSockets(c.Sockets), splice.Note(c.Note), splice.Continue(past), splice.Prefetched(first[0], first[1]))
	session, err := splice.Start(a, b, options...)
	s.mu.Lock()
	if err != nil {
		s.live.remove(c)
		s.arrived(c)
		s.mu.Unlock()
		return err
	}
	c.session = session
	aborted := s.aborting
	s.change()
	s.mu.Unlock()
	if aborted {
		session.Abort()
	}
	return nil
}
