package netbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	readSize = 256 << 10
	// headerTimeout is how long a connection may say nothing at first.
	headerTimeout = 30 * time.Second
)

// A Sink is the far end of every workload: it does what each connection's
// header asks for and verifies every byte. Make it with [NewSink].
type Sink struct {
	pattern *pattern
	loads   sinkLoads

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil when the sink is closed
	wg    sync.WaitGroup
	done  chan struct{} // closed when the sink is
}

// NewSink makes a sink.
func NewSink() *Sink {
	return &Sink{pattern: newPattern(), conns: map[net.Conn]struct{}{}, done: make(chan struct{})}
}

// ListenSink listens for [Sink.Serve]: plain TCP, and a backlog for the conn workload.
func ListenSink(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	return config.Listen(ctx, "tcp", address)
}

// Serve takes connections until ctx ends, closes ln and every connection, and
// waits for what it started. It returns nil then, and otherwise why it can't
// accept.
func (s *Sink) Serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer s.close()
	for {
		conn, err := ln.Accept()
		if err != nil {
			ln.Close()
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		if !s.track(conn) {
			conn.Close()
			continue
		}
		s.wg.Go(func() {
			defer s.untrack(conn)
			// A connection that breaks is the source's to report.
			_ = s.handle(conn.(*net.TCPConn))
		})
	}
}

func (s *Sink) track(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns != nil {
		s.conns[conn] = struct{}{}
	}
	return s.conns != nil
}

func (s *Sink) untrack(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

func (s *Sink) close() {
	s.mu.Lock()
	for conn := range s.conns {
		// A thread that is blocked in the kernel sees the shutdown only.
		_ = conn.(*net.TCPConn).CloseRead()
		conn.Close()
	}
	s.conns = nil
	close(s.done)
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Sink) handle(conn *net.TCPConn) error {
	if err := conn.SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
		return err
	}
	h, err := readHeader(conn)
	if errors.Is(err, errNoHeader) {
		return answer(conn, conn, verdict{Error: err.Error()})
	}
	if err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	switch h.kind {
	case kindEcho:
		blocking, err := newBlocking(conn)
		if err != nil {
			return err
		}
		defer blocking.Close()
		return s.echo(conn, blocking, h)
	case kindHold:
		return s.echo(conn, conn, h)
	case kindOnce:
		return s.once(conn, h)
	case kindStall:
		if err := s.stall(h); err != nil {
			return err
		}
		return s.bulk(conn, h)
	case kindRelease:
		load := s.loads.of(h)
		load.release.Do(func() { close(load.released) })
		return s.bulk(conn, h)
	default:
		return s.bulk(conn, h)
	}
}

// stall waits for the release, but not longer than the sink lives.
func (s *Sink) stall(h header) error {
	timer := time.NewTimer(h.stall)
	defer timer.Stop()
	select {
	case <-s.loads.of(h).released:
	case <-timer.C:
	case <-s.done:
		return net.ErrClosed
	}
	return nil
}

// bulk reads to the end, and answers. With the first bytes it sends one of its
// own stream, and more of it meanwhile if it is asked to.
func (s *Sink) bulk(conn *net.TCPConn, h header) error {
	ended := make(chan struct{})
	sent := make(chan sendResult, 1)
	begun := false
	v := s.receive(conn, h, func() {
		begun = true
		n, err := conn.Write(s.pattern.at(h.stream|responseBit, 0, 1))
		if first := (sendResult{int64(n), err}); h.both && err == nil {
			s.wg.Go(func() { sent <- s.send(conn, h, first, ended) })
		} else {
			sent <- first
		}
	})
	close(ended)
	if !begun {
		sent <- sendResult{}
	}
	if v.Error != "" {
		// The source may be waiting for a reader: take the rest.
		_, _ = io.Copy(io.Discard, conn)
	}
	result := <-sent
	if result.err != nil {
		return result.err
	}
	v.Sent = result.n
	v.Rcvbuf, v.TCP = inspect(conn)
	return answer(conn, conn, v)
}

type sendResult struct {
	n   int64
	err error
}

// send goes on with the sink's own stream until ended.
func (s *Sink) send(conn net.Conn, h header, r sendResult, ended <-chan struct{}) sendResult {
	for {
		select {
		case <-ended:
			return r
		default:
		}
		n, err := conn.Write(s.pattern.at(h.stream|responseBit, r.n, h.size))
		r.n += int64(n)
		if err != nil {
			r.err = err
			return r
		}
	}
}

// receive calls begin when the first bytes have come.
func (s *Sink) receive(conn net.Conn, h header, begin func()) (v verdict) {
	buf := make([]byte, readSize)
	window := s.loads.of(h).window
	for begun := false; ; {
		n, err := conn.Read(buf)
		if n > 0 && !begun {
			begun = true
			window.begin()
			begin()
		}
		if mismatch := s.pattern.check(h.stream, v.Received, buf[:n]); mismatch != nil {
			v.Error = mismatch.Error()
			return v
		}
		v.Received += int64(n)
		if n > 0 && window.open() {
			v.InWindow += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return v
		}
		if err != nil {
			v.Error = fmt.Sprintf("read: %v", err)
			return v
		}
	}
}

// echo answers each message with one of the same size. It reads and writes
// through rw, which is conn or a blocking view of it.
func (s *Sink) echo(conn *net.TCPConn, rw io.ReadWriter, h header) error {
	buf := make([]byte, h.size)
	var v verdict
	for {
		_, err := io.ReadFull(rw, buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			v.Error = fmt.Sprintf("the stream ended within a message, after byte %d", v.Received)
			break
		}
		if err != nil {
			return err
		}
		if err := s.pattern.check(h.stream, v.Received, buf); err != nil {
			v.Error = err.Error()
			// Whatever else comes would be misread.
			_ = answer(conn, rw, v)
			_, _ = io.Copy(io.Discard, conn)
			return err
		}
		v.Received += int64(h.size)
		n, err := rw.Write(s.pattern.at(h.stream|responseBit, v.Sent, h.size))
		v.Sent += int64(n)
		if err != nil {
			return err
		}
	}
	v.Rcvbuf, v.TCP = inspect(conn)
	return answer(conn, rw, v)
}

// once answers one message, and sees that the end of the stream follows. It
// speaks of what was wrong only.
func (s *Sink) once(conn *net.TCPConn, h header) error {
	fault, err := s.answerOnce(conn, h)
	if err != nil || fault == "" {
		return err
	}
	if err := answer(conn, conn, verdict{Error: fault}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn) // what is unread would turn the end into a reset
	return err
}

func (s *Sink) answerOnce(conn *net.TCPConn, h header) (fault string, err error) {
	buf := make([]byte, h.size)
	if n, err := io.ReadFull(conn, buf); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Sprintf("the stream ended within a message, after byte %d", n), nil
	} else if err != nil {
		return "", err
	}
	if mismatch := s.pattern.check(h.stream, 0, buf); mismatch != nil {
		return mismatch.Error(), nil
	}
	if _, err := conn.Write(s.pattern.at(h.stream|responseBit, 0, h.size)); err != nil {
		return "", err
	}
	n, err := conn.Read(buf[:1])
	switch {
	case n > 0:
		return fmt.Sprintf("more bytes than the %d that were sent", h.size), nil
	case !errors.Is(err, io.EOF):
		return "", err
	}
	if h.word {
		_, err = conn.Write(s.pattern.at(h.stream|responseBit, int64(h.size), lastWord))
		return "", err
	}
	return "", nil
}

// answer sends the verdict and the FIN.
func answer(conn *net.TCPConn, w io.Writer, v verdict) error {
	b, err := v.marshal()
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	return conn.CloseWrite()
}
