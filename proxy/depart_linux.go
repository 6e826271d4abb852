package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// What is spliced under the name of an instance is not taken back into sockets for another
// process that has the same instance. Nothing of it is touched:
//
//	old: Flows   what it knows of each, beyond what is pinned
//	old: Free    it has no part in them any more, and has let go of the instance
//	new: Got     it has taken the instance, and adopted them: or Refused
//
// Between Free and Got, some milliseconds, they are the kernel's alone. Whoever finds the other
// dead, before or after, takes the instance and adopts all that is there; the records are with both
// by then. What was being handed over to wire, or taken back, when Flows was said comes with its
// sockets, as all others do.

// A departure is that of the flows of an instance.
type departure struct {
	adopts  bool // the other process does
	gone    map[splice.Flow]departed
	n       int // of these, those that the other has
	release func()
	refused error
}

// A departed connection may have to come back.
type departed struct {
	conn *conn
	past splice.Past
	at   time.Time
}

const (
	// flowsAtOnce is how many records go in one message.
	flowsAtOnce = 500
	// leavePatience is how long flows are waited for that are to be left. They are at once,
	// unless one has just ended, or is being taken back: that one comes later, with sockets.
	leavePatience = 2 * time.Second
	leaveLook     = time.Millisecond
)

// Flows is how many of the connections that Move has handed over were adopted, without a pause.
func (m *Succession) Flows() int { return m.n }

// leave has the other process adopt what is spliced.
func (m *Succession) leave() error {
	records, conns := m.flows()
	if len(records) == 0 {
		return m.free()
	}
	for chunk := range slices.Chunk(records, flowsAtOnce) {
		if err := m.say(message{Flows: chunk}, nil); err != nil {
			return err
		}
		if err := expectAnswer(m.conn, "taking connections over", func(a *message) bool { return a.Got }); err != nil {
			return err
		}
	}
	m.leaveThem(conns)
	return m.free()
}

// flows are the connections that can be left, and their records.
func (m *Succession) flows() (records []connRecord, conns []*conn) {
	m.gone = make(map[splice.Flow]departed)
	for _, c := range m.server.joinedConns(func(*conn) bool { return true }) {
		f, past, ok := c.session.Flow()
		if !ok {
			continue
		}
		q := parcelled{parted: parted{conn: c.conn}, past: past}
		r := q.record()
		r.Flow = f
		records, conns = append(records, r), append(conns, c.conn)
		m.gone[f] = departed{c.conn, past, time.Now()}
	}
	return records, conns
}

// leaveThem has connections go on without this process. One that does not any more is to be
// handed over with its sockets.
func (m *Succession) leaveThem(conns []*conn) {
	s := m.server
	s.mu.Lock()
	var sessions []*splice.Session
	for _, c := range conns {
		if c.in == &s.live && c.session != nil && !c.parting {
			c.parting = true
			sessions = append(sessions, c.session)
		}
	}
	s.mu.Unlock()
	for _, session := range sessions {
		session.Leave()
		session.HandOver()
	}
	late := time.NewTimer(leavePatience)
	defer late.Stop()
	for i := 0; i < len(conns); {
		s.mu.Lock()
		for i < len(conns) && conns[i].in != &s.live {
			i++
		}
		s.mu.Unlock()
		select {
		case <-late.C:
			return
		case <-time.After(leaveLook):
		}
	}
}

// free lets go of the instance.
func (m *Succession) free() error {
	s := m.server
	// What is left in the table and this process has no part in any more.
	s.mu.Lock()
	for f, d := range m.gone {
		if d.conn.in != nil || !d.conn.flown {
			delete(m.gone, f)
		}
	}
	s.mu.Unlock()
	var taken []takenRecord
	for f := range m.gone {
		taken = append(taken, takenRecord{f.B, []uint16{f.BLocal.Port()}})
	}
	// Clients that were not joined yet are connected to servers here.
	m.release, _ = keepOff(taken) // if not, for a moment one of them could get the port of a flow
	if err := m.say(message{Free: &free{Except: s.leaveInstance()}}, nil); err != nil {
		return err
	}
	answer, p, err := hear(m.conn)
	if err != nil {
		return fmt.Errorf("the new process has not adopted the flows: %w", err)
	}
	p.Close()
	switch {
	case answer.Got:
		m.n = len(m.gone)
		return nil
	case answer.Refused == "":
		return errors.New("the new process has answered something else than that it has adopted the flows")
	}
	m.refused = fmt.Errorf("the new process has not adopted the flows: %s", answer.Refused)
	return m.reclaim() // and hand them over with sockets
}

// reclaim takes the instance back, with all that is there.
func (m *Succession) reclaim() error {
	_, err := m.server.adoptSoon(context.Background(), adoption{known: m.known})
	if errors.Is(err, splice.ErrInstanceInUse) && m.n > 0 {
		return nil // the next one had handed it on before it died: it has the flows
	}
	m.n = 0
	if err != nil {
		return fmt.Errorf("take the flows back: %w", err)
	}
	return nil
}

func (m *Succession) known(f splice.Flow) (*conn, *splice.Past) {
	d, ok := m.gone[f]
	if !ok {
		return nil, nil
	}
	delete(m.gone, f)
	d.past.Quiet += time.Since(d.at)
	s := m.server
	s.mu.Lock()
	defer s.mu.Unlock()
	d.conn.parting, d.conn.session = false, nil
	return d.conn, &d.past
}

// depart ends the server's part in the instance, or, if the other process has died, has it take
// part again. err is how the hand-over has ended.
func (m *Succession) depart(ctx context.Context, err error) error {
	if m.release != nil {
		defer m.release()
	}
	s := m.server
	switch {
	case s.Wire.Instance == "":
		return err
	case err != nil && ctx.Err() == nil:
		return errors.Join(err, m.reclaim())
	case err != nil: // the other one lives, and adopts what it finds
		_, conns := m.flows()
		m.leaveThem(conns)
	}
	s.leaveInstance()
	return errors.Join(err, m.refused)
}
