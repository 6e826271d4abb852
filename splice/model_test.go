//go:build linux

package splice_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/spliced-io/spliced/splice"
	"github.com/spliced-io/spliced/splice/conformance"
)

// TestModel drives a relay at random and compares it with a model that knows
// only how much was sent, received and let through.
func TestModel(t *testing.T) {
	// A failure prints what repeats it; files would stay behind.
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		t.Fatal(err)
	}
	for _, e := range conformance.Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) { drive(t, e) })
		})
	}
}

// drive makes one random run.
func drive(t *rapid.T, e conformance.Engine) {
	leg := rapid.SampledFrom([]conformance.Leg{conformance.TCP4, conformance.TCP6, conformance.Unix})
	m := &model{
		t:   t,
		own: rapid.Bool().Draw(t, "own"),
		tcp: [2]bool{true, true},
	}
	n := conformance.Network{A: leg.Draw(t, "leg a"), B: leg.Draw(t, "leg b")}
	m.tcp = [2]bool{n.A != conformance.Unix, n.B != conformance.Unix}
	m.link = conformance.NewLink(t, e, n, m.own)
	for i, c := range []net.Conn{m.link.A, m.link.B} {
		m.ways[i].salt = byte(1 + 100*i)
		m.ways[i].src = newSender(t, c)
		m.ways[1-i].dst = c
	}
	m.start()
	t.Repeat(map[string]func(*rapid.T){
		"send":    m.send,
		"receive": m.receive,
		"finish":  m.finish,
		"rest":    m.rest,
		"rejoin":  m.rejoin,
		"reset":   m.reset,
		"":        m.check,
	})
	m.end()
}

// A model is what a relay should be.
type model struct {
	t    *rapid.T
	link *conformance.Link
	own  bool
	tcp  [2]bool
	ways [2]modelWay // from a to b, from b to a
	dead bool        // one side was reset
}

// A modelWay is one direction.
type modelWay struct {
	salt     byte
	src      *sender
	dst      net.Conn
	sent     int64 // given to the sender
	finished bool  // the FIN too
	received int64
	before   int64 // delivered by earlier sessions
	limit    int64 // of this session; 0 is none
	rest     []byte
	seen     int64 // the count last seen
}

// through is how much of what was sent the session lets through.
func (w *modelWay) through() int64 {
	if w.limit == 0 {
		return w.sent
	}
	return min(w.sent, w.before+w.limit)
}

// limited says whether the limit comes before the FIN.
func (w *modelWay) limited() bool { return w.limit > 0 && w.sent >= w.before+w.limit }

func (m *model) start() {
	m.link.Start(
		splice.MaxBytes(m.ways[0].limit, m.ways[1].limit),
		splice.Prefetched(m.ways[0].rest, m.ways[1].rest),
	)
	for i := range m.ways {
		m.ways[i].seen = 0
	}
}

// size draws a number of bytes, small ones as often as large ones.
func size(t *rapid.T, what string) int64 {
	return rapid.Int64Range(1, 1<<rapid.IntRange(1, 21).Draw(t, what+" bits")).Draw(t, what)
}

func (m *model) way(t *rapid.T) *modelWay {
	if m.dead {
		t.Skip("reset")
	}
	return &m.ways[rapid.IntRange(0, 1).Draw(t, "way")]
}

func (m *model) send(t *rapid.T) {
	w := m.way(t)
	if w.finished {
		t.Skip("finished")
	}
	n := size(t, "send")
	w.src.push(stream(w.salt, w.sent, n))
	w.sent += n
}

func (m *model) receive(t *rapid.T) {
	w := m.way(t)
	n := min(size(t, "receive"), w.through()-w.received)
	if n == 0 {
		t.Skip("nothing to receive")
	}
	m.read(w, n)
}

func (m *model) read(w *modelWay, n int64) {
	buf := make([]byte, n)
	if k, err := io.ReadFull(w.dst, buf); err != nil {
		m.t.Fatalf("receive %d bytes at %d: %v after %d; %+v", n, w.received, err, k, m.link.Session.Stats())
	}
	if !bytes.Equal(buf, stream(w.salt, w.received, n)) {
		m.t.Fatalf("wrong bytes between %d and %d", w.received, w.received+n)
	}
	w.received += n
}

// finish sends the FIN of one side. Both sides' would end the session, and
// with it an owned connection.
func (m *model) finish(t *rapid.T) {
	w := m.way(t)
	if m.ways[0].finished || m.ways[1].finished {
		t.Skip("one side has finished")
	}
	if m.own && m.ways[0].limit > 0 {
		t.Skip("the other way ends by its limit")
	}
	w.finished = true
	w.src.push(nil)
}

// rest waits until everything that can move has moved.
func (m *model) rest(t *rapid.T) {
	w := m.way(t)
	const fits = 16 << 10 // any receiver's buffer
	if w.through()-w.received > fits {
		t.Skip("the receiver is not ready for that much")
	}
	m.eventually("all bytes counted", func() bool { return m.bytes(w) == w.through()-w.before })
}

// rejoin stops the session and starts another with what is left.
func (m *model) rejoin(t *rapid.T) {
	if m.dead {
		t.Skip("reset")
	}
	if m.own && m.over() {
		t.Skip("the session has closed its connections")
	}
	m.stop()
	for i := range m.ways {
		w := &m.ways[i]
		w.limit = 0
		// An owned session must not end by itself: one way stays open.
		if rapid.Bool().Draw(t, "limit") && (!m.own || i == 0 && !m.ways[0].finished && !m.ways[1].finished) {
			w.limit = size(t, "limit")
		}
	}
	m.start()
}

// stop ends the session and checks its result.
func (m *model) stop() {
	res := m.link.StopNow()
	for i, end := range []splice.End{res.AToB, res.BToA} {
		w := &m.ways[i]
		if end.Bytes > w.through()-w.before {
			m.t.Fatalf("way %d: %d bytes counted, at most %d could cross", i, end.Bytes, w.through()-w.before)
		}
		switch end.Reason {
		case splice.Max:
			if !w.limited() || end.Bytes != w.limit {
				m.t.Fatalf("way %d: ended by its limit of %d after %d bytes", i, w.limit, end.Bytes)
			}
		case splice.EOF:
			if !w.finished || end.Bytes != w.sent-w.before {
				m.t.Fatalf("way %d: ended by a FIN after %d of %d bytes; sent: %v", i, end.Bytes, w.sent-w.before, w.finished)
			}
		case splice.Stopped:
		default:
			m.t.Fatalf("way %d: ended by %v, %v", i, end.Reason, end.Err)
		}
		w.before += end.Bytes
		w.rest = end.Undelivered
		if !bytes.Equal(w.rest, stream(w.salt, w.before, int64(len(w.rest)))) {
			m.t.Fatalf("way %d: the %d bytes returned are not those after %d", i, len(w.rest), w.before)
		}
	}
}

// reset has one side go with a RST, the last thing of a run.
func (m *model) reset(t *rapid.T) {
	i := rapid.IntRange(0, 1).Draw(t, "side")
	w, back := &m.ways[i], &m.ways[1-i]
	if m.dead || !m.tcp[0] || !m.tcp[1] || w.limit > 0 || back.limit > 0 || w.finished || back.finished {
		t.Skip("no plain reset")
	}
	if rapid.IntRange(0, 5).Draw(t, "rarely") != 0 {
		t.Skip("not yet")
	}
	m.dead = true
	// What the relay has for certain: what its side has been asked for again.
	sure := w.received
	w.src.halt()
	if err := w.src.conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	w.src.conn.Close()
	back.src.halt()
	buf := make([]byte, w.sent-w.received+1)
	n, err := io.ReadFull(w.dst, buf)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("after the reset: %d bytes, %v; %+v", n, err, m.link.Session.Stats())
	}
	if !bytes.Equal(buf[:n], stream(w.salt, w.received, int64(n))) {
		t.Fatalf("wrong bytes behind %d before the reset", w.received)
	}
	w.received += int64(n)
	if w.received < sure {
		t.Fatalf("%d bytes received, %d were there", w.received, sure)
	}
	res := m.link.Wait()
	ends := [2]splice.End{res.AToB, res.BToA}
	if ends[i].Reason != splice.ResetBySource || ends[1-i].Reason != splice.ResetByDrain {
		t.Fatalf("ended by %v and %v", ends[i].Reason, ends[1-i].Reason)
	}
	if have := w.before + ends[i].Bytes; have < w.received {
		t.Fatalf("%d bytes received, %d counted", w.received, have)
	}
}

// check holds after every step.
func (m *model) check(t *rapid.T) {
	for i := range m.ways {
		w := &m.ways[i]
		n := m.bytes(w)
		if n < w.seen || w.before+n > w.sent || !m.dead && n > w.through()-w.before {
			t.Fatalf("way %d: %d bytes counted, %d before, %d can cross", i, n, w.seen, w.through()-w.before)
		}
		w.seen = n
	}
}

// end lets everything through, and both sides finish.
func (m *model) end() {
	if m.dead {
		return
	}
	if !m.own || !m.over() {
		m.stop()
		m.ways[0].limit, m.ways[1].limit = 0, 0
		m.start()
	}
	for i := range m.ways {
		w := &m.ways[i]
		if !w.finished {
			w.finished = true
			w.src.push(nil)
		}
		m.read(w, w.through()-w.received)
		if n, err := w.dst.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			m.t.Fatalf("way %d: want EOF, read %d bytes, %v; %+v", i, n, err, m.link.Session.Stats())
		}
	}
	res := m.link.Wait()
	for i, end := range []splice.End{res.AToB, res.BToA} {
		if w := &m.ways[i]; end.Reason != splice.EOF || w.before+end.Bytes != w.sent || len(end.Undelivered) > 0 {
			m.t.Fatalf("way %d: %d bytes sent; the last session delivered those from %d on: %+v", i, w.sent, w.before, end)
		}
	}
}

func (m *model) over() bool {
	select {
	case <-m.link.Session.Done():
		return true
	default:
		return false
	}
}

func (m *model) bytes(w *modelWay) int64 {
	s := m.link.Session.Stats()
	if w == &m.ways[0] {
		return s.AToB.Bytes
	}
	return s.BToA.Bytes
}

func (m *model) eventually(what string, cond func() bool) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !cond(); <-tick.C {
		if time.Now().After(end) {
			m.t.Fatalf("not in time: %s; %+v", what, m.link.Session.Stats())
		}
	}
}

// stream returns n bytes from position off on; each depends on its position.
func stream(salt byte, off, n int64) []byte {
	b := make([]byte, n)
	for i := range b {
		x := uint64(off+int64(i)) * 0x9e3779b97f4a7c15
		b[i] = byte(x>>56) ^ byte(x>>20) ^ salt
	}
	return b
}

// A sender sends in the background whatever it is given.
type sender struct {
	conn  net.Conn
	queue chan []byte // nil is a FIN
	done  chan struct{}
}

func newSender(t *rapid.T, c net.Conn) *sender {
	s := &sender{c, make(chan []byte, 1000), make(chan struct{})}
	go func() {
		defer close(s.done)
		for p := range s.queue {
			if p == nil {
				_ = c.(interface{ CloseWrite() error }).CloseWrite()
			} else if _, err := c.Write(p); err != nil {
				return // the receiver finds out
			}
		}
	}()
	t.Cleanup(s.halt)
	return s
}

func (s *sender) push(p []byte) { s.queue <- p }

// halt interrupts what is being sent, once.
func (s *sender) halt() {
	select {
	case <-s.done:
		return
	default:
	}
	_ = s.conn.SetWriteDeadline(time.Unix(1, 0))
	close(s.queue)
	<-s.done
}
