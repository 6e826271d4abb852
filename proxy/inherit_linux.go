package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/proxy/internal/parcel"
	"github.com/spliced-io/spliced/splice"
)

// Inherit receives what the server of another process offers at the other end of
// conn, by [Server.HandOver]: all but its connections, which come once the server
// that has this as its [Server.Inheritance] was started. Until then that other
// process goes on as if nothing was; [Inheritance.Refuse] tells it why it has to.
// After an error it was told so.
func Inherit(ctx context.Context, conn *net.UnixConn) (*Inheritance, error) {
	i := &Inheritance{conn: conn}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := i.receive(); err != nil {
		err = fmt.Errorf("take over: %w", err)
		i.Refuse(err)
		return nil, err
	}
	return i, nil
}

func (i *Inheritance) receive() error {
	for first := true; ; first = false {
		m, p, err := hear(i.conn)
		if errors.Is(err, io.EOF) {
			err = errors.New("the process before this one has ended, or given up")
		}
		if err != nil {
			return err
		}
		err = i.take(m, p, first)
		p.Close()
		if err != nil || m.Rest != nil {
			return err
		}
	}
}

// take takes in one message.
func (i *Inheritance) take(m *message, p *parcel.Parcel, first bool) error {
	switch {
	case first != (m.Hello != nil):
		return errors.New("the process before this one does not begin with its version")
	case first:
		i.Predecessor, i.PID = m.Hello.Program, m.Hello.PID
		return m.Hello.check()
	case m.Rest != nil:
		i.state, i.State = m.Rest.Server, m.Rest.State
		i.Files = make(map[string]*os.File)
		for n, name := range m.Rest.Files {
			if f := p.Take(n); f != nil && i.Files[name] == nil {
				i.Files[name] = f
			}
		}
		return nil
	}
	for n, r := range m.Sockets {
		ln, err := listenerOf(p.Take(n))
		if err != nil {
			return fmt.Errorf("listener %s: the socket %s: %w", r.Listener, r.Address, err)
		}
		h := &heirloom{socketRecord: r, ln: ln}
		if r.Path != "" {
			h.file = socketFileAt(r.Path)
		}
		i.sockets = append(i.sockets, h)
	}
	return nil
}

// check says whether what follows is understood.
func (h *hello) check() error {
	if h.Oldest > HandOverVersion || h.Version < oldestHandOver {
		return fmt.Errorf("spliced %s hands over by version %d, for programs that know %d or later, and this program knows %d to %d: want a restart instead",
			h.Program, h.Version, h.Oldest, oldestHandOver, HandOverVersion)
	}
	return nil
}

// listenerOf makes a listener of a file, which it closes.
func listenerOf(f *os.File) (net.Listener, error) {
	if f == nil {
		return nil, errors.New("it did not come along")
	}
	defer f.Close()
	return net.FileListener(f)
}

// Listener takes a listening socket of the [Baggage]. nil: there is none of that
// name. path is what [SocketPath] has said to the predecessor; a call of
// SetUnlinkOnClose(true) has the file removed with the listener, if it is still the
// same one then.
func (i *Inheritance) Listener(name, path string) (net.Listener, error) {
	if i == nil || i.Files[name] == nil {
		return nil, nil
	}
	f := i.Files[name]
	delete(i.Files, name)
	ln, err := listenerOf(f)
	if u, ok := ln.(*net.UnixListener); ok && path != "" {
		return &boundUnix{UnixListener: u, file: socketFileAt(path), leave: true}, err
	}
	return ln, err
}

// Refuse tells the other process that it has to go on, and why, unless a server
// that was started with i has told it to go. Nothing is left of i afterwards.
func (i *Inheritance) Refuse(err error) {
	if i == nil || i.conn == nil {
		return
	}
	_ = i.conn.SetDeadline(time.Now().Add(agreement))
	_ = say(i.conn, message{Refused: err.Error()}, nil) // it may have ended
	_ = i.conn.Close()
	i.conn = nil
	i.discard()
}

// discard closes what nobody has claimed.
func (i *Inheritance) discard() {
	for _, h := range i.sockets {
		if h.ln != nil {
			_ = h.ln.Close()
		}
	}
	i.sockets = nil
	for _, f := range i.Files {
		_ = f.Close()
	}
	i.Files = nil
}

// claim returns the sockets of that key for the listener of that name. As in
// [Server.find] an address with a port that the kernel chose is its listener's.
func (i *Inheritance) claim(name string, key socketKey) ([]*socket, error) {
	if i == nil {
		return nil, nil
	}
	var found []*socket
	var err error
	i.sockets = slices.DeleteFunc(i.sockets, func(h *heirloom) bool {
		if h.Address != key.address || strings.HasSuffix(key.address, ":0") && h.Listener != name {
			return false
		}
		if h.Options != key.options {
			err = errOptions(key.address)
			return false
		}
		found = append(found, &socket{key: key, ln: h.ln, addr: h.ln.Addr(), inherited: h.file})
		return true
	})
	return found, err
}

// succeed has the predecessor accept no more, once everything is there, and this
// server take over its connections in the background.
func (s *Server) succeed(ctx context.Context) error {
	i := s.Inheritance
	if i == nil {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = i.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	s.recallRates(i.state.Rates)
	release := func() {}
	err := say(i.conn, message{Ready: true, Table: i.table}, nil)
	var m *message
	if err == nil {
		var p *parcel.Parcel
		if m, p, err = hear(i.conn); err == nil {
			p.Close()
			s.mu.Lock()
			s.lastID = max(s.lastID, m.Go)
			s.mu.Unlock()
			if m.Go == 0 {
				err = errors.New("an answer that nobody knows")
			} else {
				s.recallServers(i.state.latest(m))
				i.Latest = m.Last
				release, err = keepOff(m.Taken)
			}
		}
	}
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = say(i.conn, message{Going: true}, nil)
	}
	if err != nil {
		release()
		return fmt.Errorf("take over: the process before this one: %w", err)
	}
	conn := i.conn
	i.conn = nil
	// What no listener has now is closed as a reload would close it.
	for _, h := range i.sockets {
		h.file.remove()
	}
	i.discard()
	s.mu.Lock()
	s.arriving = true
	s.mu.Unlock()
	instance := i.hasInstance(&s.Wire)
	arrive := func(ctx context.Context) {
		defer release()
		s.arrivals(ctx, conn, instance)
	}
	if !s.start(arrive) {
		release()
		_ = conn.Close()
		return ErrServerClosed
	}
	return nil
}

// keepOff has connections to servers take none of these ports until release is called.
func keepOff(taken []takenRecord) (release func(), err error) {
	var releases []func()
	release = func() {
		for _, f := range releases {
			f()
		}
	}
	for _, t := range taken {
		f, err := splice.ReservePorts(t.Target, t.Ports)
		if err != nil {
			return release, err
		}
		releases = append(releases, f)
	}
	return release, nil
}

// latest is what the predecessor knew of its servers when it said Go. One of an older version
// has said it before.
func (st *serverState) latest(m *message) []memberRecord {
	if m.Latest != nil {
		return m.Latest.Members
	}
	return st.Members
}

// recallRates has those wait who have come too often for the predecessor.
func (s *Server) recallRates(rates []rateRecord) {
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	for _, r := range rates {
		if l := listeners[r.Listener]; l != nil {
			l.policy.Load().rate.Owe(r.Debts)
		}
	}
}

// arrivals takes connections over until the predecessor has no more, or ctx ends:
// then they are its own again. instance says that the predecessor has the one that this
// server is to have.
func (s *Server) arrivals(ctx context.Context, conn *net.UnixConn, instance bool) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	a := &arrival{places: newPlaces(s), flows: make(map[splice.Flow]*connRecord)}
	for {
		if a.told.Err = s.awaitVacancy(ctx); a.told.Err != nil {
			break
		}
		m, p, err := hear(conn)
		if err == nil {
			err = a.hear(conn, m, p)
			p.Close()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if a.told.Err = err; err != nil {
			break
		}
	}
	_ = conn.Close() // the predecessor has let go of the instance, or does
	if instance {
		a.told.Instance = a.adoptRest(ctx)
	}
	told := a.told
	a.retire()
	if s.Hooks.Inherited != nil {
		s.Hooks.Inherited(told)
	}
	s.mu.Lock()
	s.arriving, s.others = false, nil
	s.change()
	s.mu.Unlock()
}

// vacancyPatience is how long the predecessor is kept waiting for descriptors.
const vacancyPatience = 5 * time.Second

// awaitVacancy waits for descriptors for more connections: of those that the predecessor
// had without any, and which have some now, until they are spliced again. An error has the
// others stay where they are.
func (s *Server) awaitVacancy(ctx context.Context) error {
	late := time.NewTimer(vacancyPatience)
	defer late.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.open-s.bare >= s.files {
		if s.wait(ctx.Done(), late.C) != nil {
			return errNoVacancy
		}
	}
	return nil
}

// An arrival is that of connections which another process hands over.
type arrival struct {
	*places
	flows map[splice.Flow]*connRecord
	told  Inherited
}

// hear does what a message says, and answers it.
func (a *arrival) hear(conn *net.UnixConn, m *message, p *parcel.Parcel) error {
	if m.Free != nil {
		n, err := a.server.adoptFlows(adoption{lives: true, except: m.Free.Except, known: a.known, places: a.places})
		a.told.Flows += n
		a.told.Connections += n
		if err != nil {
			return say(conn, message{Refused: err.Error()}, nil)
		}
		return say(conn, message{Got: true}, nil)
	}
	for n := range m.Flows {
		a.flows[m.Flows[n].Flow] = &m.Flows[n]
	}
	if err := say(conn, message{Got: true}, nil); err != nil {
		return err
	}
	for n := range m.Conns {
		if err := a.welcome(&m.Conns[n], p, n); err != nil {
			a.told.Lost++
		} else {
			a.told.Connections++
		}
	}
	return nil
}

// known makes the connection of a flow that the predecessor has told of.
func (a *arrival) known(f splice.Flow) (*conn, *splice.Past) {
	r := a.flows[f]
	if r == nil {
		return nil, nil
	}
	delete(a.flows, f)
	c, _ := a.place(r)
	return c, &r.Past
}

// adoptRest has the server adopt what the predecessor has left since, or had no time to hand
// over. It is gone, or has no part in the instance any more.
func (a *arrival) adoptRest(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil // they are the next one's
	}
	n, err := a.server.adoptSoon(ctx, adoption{rest: true, known: a.known, places: a.places})
	a.told.Flows += n
	a.told.Connections += n
	return err
}

// welcome makes a connection of ours of record n of a parcel.
func (a *arrival) welcome(r *connRecord, p *parcel.Parcel, n int) error {
	client, server := p.Take(2*n), p.Take(2*n+1)
	raw := p.Raw
	if client == nil || server == nil || min(r.First[0], r.First[1]) < 0 || r.First[0] > len(raw) || r.First[1] > len(raw)-r.First[0] {
		for _, f := range []*os.File{client, server} {
			if f != nil {
				resetFile(f)
			}
		}
		return syscall.EBADMSG
	}
	first := [2][]byte{raw[:r.First[0]:r.First[0]], raw[r.First[0]:][:r.First[1]:r.First[1]]}
	p.Raw = raw[r.First[0]+r.First[1]:]
	s := a.server
	c, plan := a.place(r)
	c.before = &totals{
		bytesToTarget: r.Past.AToB.Bytes, splicedToTarget: r.Past.AToB.Spliced,
		bytesToClient: r.Past.BToA.Bytes, splicedToClient: r.Past.BToA.Spliced,
	}
	c.member.active.Add(1)
	s.mu.Lock()
	s.comes(c)
	s.mu.Unlock()
	err := c.resume(client, server, plan, r.Past, first)
	if err == nil {
		return nil
	}
	resetFile(client)
	resetFile(server)
	s.mu.Lock()
	s.open--
	c.listener.release(c)
	s.change()
	s.mu.Unlock()
	c.member.leave()
	return err
}

// resetFile is reset for the file of a socket.
func resetFile(f *os.File) {
	defer f.Close()
	if c, err := net.FileConn(f); err == nil {
		reset(c)
	}
}
