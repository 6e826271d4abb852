//go:build linux

package conformance

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// A way is one direction of a link.
type way struct {
	*Link
	pattern
	ahead    bool     // from A to B
	src, dst net.Conn // the sender and the receiver, at the outer ends
}

func (l *Link) forward() way { return way{l, l.place.aToB, true, l.A, l.B} }

func (l *Link) backward() way { return way{l, l.place.bToA, false, l.B, l.A} }

func (w way) back() way {
	if w.ahead {
		return w.backward()
	}
	return w.Link.forward()
}

// in is the relay's connection that faces the sender.
func (w way) in() net.Conn {
	if w.ahead {
		return w.relayA
	}
	return w.relayB
}

// out is the relay's connection that faces the receiver.
func (w way) out() net.Conn { return w.back().in() }

// inLeg and outLeg are the kinds of these connections.
func (w way) inLeg() Leg {
	if w.ahead {
		return w.place.network.A
	}
	return w.place.network.B
}

func (w way) outLeg() Leg { return w.back().inLeg() }

func (w way) stats() splice.DirectionStats {
	if w.ahead {
		return w.Session.Stats().AToB
	}
	return w.Session.Stats().BToA
}

// handed says whether the session is one of an engine that needs no sockets.
func (w way) handed() bool {
	h := w.place.engine.Handed
	return h != nil && h(w.Session.Stats())
}

func (w way) end(res splice.Result) splice.End {
	if w.ahead {
		return res.AToB
	}
	return res.BToA
}

// max limits this direction.
func (w way) max(n int64) splice.Option {
	if w.ahead {
		return splice.MaxBytes(n, 0)
	}
	return splice.MaxBytes(0, n)
}

// prefetched hands over the first n bytes of this direction.
func (w way) prefetched(p []byte) splice.Option {
	if w.ahead {
		return splice.Prefetched(p, nil)
	}
	return splice.Prefetched(nil, p)
}

// send sends n bytes of the pattern from position off on.
func (w way) send(off, n int64) {
	w.t.Helper()
	w.sendChunks(off, n, n)
}

func (w way) sendChunks(off, n, chunk int64) {
	w.t.Helper()
	if done, err := w.write(w.src, off, n, chunk); err != nil {
		w.t.Fatalf("send %d bytes from position %d on: %v after %d", n, off, err, done)
	}
}

// receive receives n bytes of the pattern from position off on.
func (w way) receive(off, n int64) {
	w.t.Helper()
	w.receiveFrom(w.dst, off, n)
}

func (w way) receiveFrom(c net.Conn, off, n int64) {
	w.t.Helper()
	if done, err := w.read(c, off, n); err != nil {
		w.t.Fatalf("receive %d bytes from position %d on: %v after %d%s", n, off, err, done, w.state())
	}
}

func (w way) state() string {
	if w.Session == nil {
		return ""
	}
	s := w.stats()
	return "; " + s.Reason.String() + ", engine " + s.Engine.String() + ", " + string(s.Why)
}

// carry sends n bytes and receives them, both at once.
func (w way) carry(off, n, chunk int64) {
	w.t.Helper()
	p := w.pump(off, n, chunk)
	w.receive(off, n)
	if sent := p.wait(); sent != n {
		w.t.Fatalf("sent %d of %d bytes: %v", sent, n, p.err)
	}
}

// finish sends the FIN.
func (w way) finish() {
	w.t.Helper()
	if err := closeWrite(w.src); err != nil {
		w.t.Fatalf("shut down: %v", err)
	}
}

// receiveEOF expects the FIN, and no byte before it.
func (w way) receiveEOF() {
	w.t.Helper()
	w.receiveEOFFrom(w.dst)
}

func (w way) receiveEOFFrom(c net.Conn) {
	w.t.Helper()
	var one [1]byte
	if n, err := c.Read(one[:]); n != 0 || !errors.Is(err, io.EOF) {
		w.t.Fatalf("want EOF, read %d bytes, %v%s", n, err, w.state())
	}
}

// abort has the sender go with a RST. A unix socket has none: it resets its
// peer if it is closed with bytes unread, so the receiver sends it one first,
// which is the one returned. sent is how much the receiver has sent before.
func (w way) abort(sent int64) (extra int64) {
	w.t.Helper()
	if w.inLeg().tcp() {
		if err := w.src.(*net.TCPConn).SetLinger(0); err != nil {
			w.t.Fatalf("set linger: %v", err)
		}
	} else if n, err := unread(w.src); err != nil || n == 0 {
		extra = 1
		w.back().send(sent, extra)
		eventually(w.t, "an unread byte at the sender", func() bool {
			n, err := unread(w.src)
			return err == nil && n > 0
		})
	}
	if err := w.src.Close(); err != nil {
		w.t.Fatalf("close: %v", err)
	}
	return extra
}

// receiveReset expects a RST, and no byte before it. A unix socket can't
// always pass one on: there the end of the stream is as much as can be had.
func (w way) receiveReset() {
	w.t.Helper()
	var one [1]byte
	n, err := w.dst.Read(one[:])
	switch {
	case n == 0 && errors.Is(err, syscall.ECONNRESET):
	case n == 0 && errors.Is(err, io.EOF) && !w.outLeg().tcp():
	default:
		w.t.Fatalf("want a reset, read %d bytes, %v%s", n, err, w.state())
	}
}

// receiveUntilReset receives what the pattern has from position off on until
// a reset, and returns how much that was.
func (w way) receiveUntilReset(off int64) (n int64) {
	w.t.Helper()
	n, err := w.read(w.dst, off, 1<<40)
	switch {
	case errors.Is(err, syscall.ECONNRESET):
	case errors.Is(err, io.EOF) && !w.outLeg().tcp():
	default:
		w.t.Fatalf("want bytes and then a reset, have %d bytes from position %d on, %v%s", n, off, err, w.state())
	}
	return n
}

// carried waits until exactly n bytes are counted, and never more.
func (w way) carried(n int64) {
	w.t.Helper()
	eventually(w.t, "every delivered byte counted", func() bool {
		have := w.stats().Bytes
		if have > n {
			w.t.Fatalf("%d bytes counted, only %d sent", have, n)
		}
		return have == n
	})
}

// arrived waits until the relay's kernel has n unread bytes.
func (w way) arrived(n int64) {
	w.t.Helper()
	eventually(w.t, "the bytes queued at the relay", func() bool {
		have, err := unread(w.in())
		if err != nil {
			w.t.Fatalf("look into the queue: %v", err)
		}
		return have >= n
	})
}

// account checks that of sent bytes none is lost and none is doubled: those
// delivered, those returned and those still on the source are the pattern,
// one after the other. from is the first position not received yet. The relay's
// ends have to be the test's again.
func (w way) account(res splice.Result, from, sent int64) {
	w.t.Helper()
	end := w.end(res)
	if end.Bytes < from || end.Bytes+int64(len(end.Undelivered)) > sent {
		w.t.Fatalf("%d bytes delivered and %d returned, but %d received and %d sent",
			end.Bytes, len(end.Undelivered), from, sent)
	}
	w.receive(from, end.Bytes-from)
	if err := w.check(end.Undelivered, end.Bytes); err != nil {
		w.t.Fatalf("undelivered: %v", err)
	}
	at := end.Bytes + int64(len(end.Undelivered))
	if err := w.in().SetDeadline(time.Now().Add(lasting)); err != nil {
		w.t.Fatalf("use the source again: %v", err)
	}
	w.receiveFrom(w.in(), at, sent-at)
}

// usable checks that all four ends still speak with their peers. No byte may
// be under way.
func (l *Link) usable() {
	l.t.Helper()
	for _, c := range []net.Conn{l.relayA, l.relayB} {
		if err := c.SetDeadline(time.Now().Add(lasting)); err != nil {
			l.t.Fatalf("use the connection again: %v", err)
		}
	}
	for _, w := range []way{l.forward(), l.backward()} {
		const n = 1000
		w.send(7, n)
		w.receiveFrom(w.in(), 7, n)
		if _, err := w.write(w.out(), 7, n, n); err != nil {
			w.t.Fatalf("write to the connection again: %v", err)
		}
		w.receive(7, n)
	}
}

// A sink receives in the background, as long as there is anything.
type sink struct {
	way
	from     int64
	received atomic.Int64
	done     chan struct{}
	err      error // once done
}

// sink receives the pattern from position off on.
func (w way) sink(off int64) *sink {
	s := &sink{way: w, from: off, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		buf := make([]byte, 128<<10)
		for {
			n, err := s.dst.Read(buf)
			if bad := s.check(buf[:n], off+s.received.Load()); bad != nil {
				s.err = bad
				return
			}
			s.received.Add(int64(n))
			if err != nil {
				s.err = err
				return
			}
		}
	}()
	w.t.Cleanup(func() { s.halt() })
	return s
}

// beyond waits until the next position to receive is at least n.
func (s *sink) beyond(n int64) {
	s.t.Helper()
	eventually(s.t, "enough bytes received", func() bool {
		select {
		case <-s.done:
			if have := s.from + s.received.Load(); have < n {
				s.t.Fatalf("the receiver ended at position %d of %d: %v", have, n, s.err)
			}
		default:
		}
		return s.from+s.received.Load() >= n
	})
}

// halt stops receiving, and returns the next position to receive.
func (s *sink) halt() int64 {
	_ = s.dst.SetReadDeadline(time.Unix(1, 0))
	<-s.done
	_ = s.dst.SetReadDeadline(time.Now().Add(lasting))
	return s.from + s.received.Load()
}

// right fails if the receiver saw anything else than the pattern and then one
// of the given errors, or the end of the test.
func (s *sink) right(ends ...error) {
	s.t.Helper()
	s.halt()
	for _, e := range append(ends, os.ErrDeadlineExceeded) {
		if errors.Is(s.err, e) {
			return
		}
	}
	s.t.Fatalf("after %d bytes: %v", s.received.Load(), s.err)
}

// A pump sends in the background.
type pump struct {
	way
	sent atomic.Int64
	done chan struct{}
	err  error // once done
}

// pump sends n bytes from position off on, at most chunk in one call.
func (w way) pump(off, n, chunk int64) *pump {
	if w.place.narrow {
		chunk = min(chunk, narrowBuffer/8) // to see it block soon
	}
	p := &pump{way: w, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for p.sent.Load() < n {
			from := p.sent.Load()
			var m int64
			m, p.err = w.write(w.src, off+from, min(chunk, n-from), chunk)
			p.sent.Add(m)
			if p.err != nil {
				return
			}
		}
	}()
	w.t.Cleanup(func() { p.halt() })
	return p
}

// wait waits until all is sent, and returns how much that was.
func (p *pump) wait() int64 {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("the sender hangs after %d bytes", p.sent.Load())
	}
	return p.sent.Load()
}

// halt stops sending, and returns exactly how much was sent.
func (p *pump) halt() int64 {
	_ = p.src.SetWriteDeadline(time.Unix(1, 0))
	<-p.done
	_ = p.src.SetWriteDeadline(time.Now().Add(lasting))
	return p.sent.Load()
}

// blocked waits until the sender can't send any more, stops it, and returns
// exactly how much was sent.
func (p *pump) blocked() int64 {
	p.t.Helper()
	eventually(p.t, "the first bytes sent", func() bool { return p.sent.Load() > 0 })
	settled(p.t, "the sender", p.sent.Load)
	select {
	case <-p.done:
		p.t.Fatalf("the sender never blocked: %d bytes sent, %v", p.sent.Load(), p.err)
	default:
	}
	return p.halt()
}
