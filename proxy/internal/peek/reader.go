package peek

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A reader waits for connections that can only be read, with a goroutine each.
type reader struct {
	mu      sync.Mutex
	closed  bool
	guests  map[*reading]struct{}
	running sync.WaitGroup
}

type reading struct{ Guest }

func (r *reader) wait(g Guest) error {
	in := &reading{g}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return net.ErrClosed
	}
	if err := g.Conn.SetReadDeadline(g.Deadline); err != nil {
		return err
	}
	if r.guests == nil {
		r.guests = make(map[*reading]struct{})
	}
	r.guests[in] = struct{}{}
	r.running.Go(func() {
		o := in.run()
		r.mu.Lock()
		delete(r.guests, in)
		if r.closed && errors.Is(o.Err, os.ErrDeadlineExceeded) {
			o.Err = net.ErrClosed
		}
		_ = g.Conn.SetReadDeadline(time.Time{}) // fails on a broken connection: its next read says so
		r.mu.Unlock()
		g.Done(o)
	})
	return nil
}

func (r *reader) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.guests)
}

func (r *reader) close() {
	r.mu.Lock()
	r.closed = true
	for g := range r.guests {
		_ = g.Conn.SetReadDeadline(time.Unix(1, 0)) // as above
	}
	r.mu.Unlock()
	r.running.Wait()
}

// run reads until a look has had enough.
func (g *reading) run() Outcome {
	var b []byte
	for need := 1; ; {
		for len(b) < need {
			// Room for what comes anyway, so that a message is read in one go.
			b = grow(b, max(need, 512))
			n, err := g.Conn.Read(b[len(b):cap(b)])
			b = b[:len(b)+n]
			if err != nil && len(b) < need {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return Outcome{Bytes: b, Read: b, Err: err}
			}
		}
		a := g.Look(b)
		if err := a.check(len(b)); err != nil {
			return Outcome{Bytes: b, Read: b, Err: err}
		}
		if b = b[a.Take:]; a.Need == 0 {
			return Outcome{Bytes: b, Read: b}
		}
		need = a.Need
	}
}

// grow returns b with room for n bytes in all, and no more than that: nothing
// beyond what may be looked at is taken from the connection.
func grow(b []byte, n int) []byte {
	if cap(b) >= n && len(b) < cap(b) {
		return b
	}
	grown := make([]byte, len(b), max(n, min(2*len(b), Max)))
	copy(grown, b)
	return grown
}
