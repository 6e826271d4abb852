package splice

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// ways are the means that have to keep to a bandwidth.
func ways() map[string][]Option {
	w := map[string][]Option{"auto": nil, "copy": {Use(EngineCopy)}, "no descriptor": nil}
	if runtime.GOOS == "linux" {
		w["splice"] = []Option{Use(EngineSplice)}
	}
	return w
}

func eachWay(t *testing.T, f func(t *testing.T, start func(a, b net.Conn, opts ...Option) *Session)) {
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, func(a, b net.Conn, opts ...Option) *Session {
				t.Helper()
				var c, d io.ReadWriteCloser = a, b
				if name == "no descriptor" {
					c, d = hidden{a.(*net.TCPConn)}, hidden{b.(*net.TCPConn)}
				}
				s, err := Start(c, d, append(opts, way...)...)
				if err != nil {
					t.Fatal(err)
				}
				return s
			})
		})
	}
}

// hidden is a connection that gives no descriptor.
type hidden struct{ c *net.TCPConn }

func (h hidden) Read(b []byte) (int, error)         { return h.c.Read(b) }
func (h hidden) Write(b []byte) (int, error)        { return h.c.Write(b) }
func (h hidden) Close() error                       { return h.c.Close() }
func (h hidden) CloseWrite() error                  { return h.c.CloseWrite() }
func (h hidden) SetDeadline(at time.Time) error     { return h.c.SetDeadline(at) }
func (h hidden) SetReadDeadline(at time.Time) error { return h.c.SetReadDeadline(at) }

// joined makes a client and a server with two connections in between to join.
func joined(t *testing.T) (client, a, b, server net.Conn) {
	t.Helper()
	ends := make([]net.Conn, 0, 4)
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		far, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		near, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { near.Close(); far.Close() })
		ends = append(ends, far, near)
	}
	return ends[0], ends[1], ends[3], ends[2]
}

func send(c net.Conn, b []byte) {
	_, _ = c.Write(b)
	_ = c.(*net.TCPConn).CloseWrite()
}

const bandwidthPatience = 60 * time.Second

// A direction is never faster than its limit, and loses nothing by it. That the
// other one is not held up is seen by the end of the test.
func TestMaxRate(t *testing.T) {
	t.Parallel()
	const rate, size = 4 << 20, 2 << 20
	eachWay(t, func(t *testing.T, start func(a, b net.Conn, opts ...Option) *Session) {
		client, a, b, server := joined(t)
		up, down := bytes.Repeat([]byte("upwards "), size/8), bytes.Repeat([]byte("downwards "), 64<<20/10)
		began := time.Now()
		s := start(a, b, MaxRate(rate, 0))
		go send(client, up)
		go send(server, down)
		got := make(chan [32]byte)
		go func() {
			h := sha256.New()
			_, _ = io.Copy(h, client)
			got <- [32]byte(h.Sum(nil))
		}()
		h := sha256.New()
		if n, err := io.Copy(h, server); n != size || err != nil {
			t.Errorf("%d bytes of %d, %v", n, size, err)
		}
		took := time.Since(began)
		if [32]byte(h.Sum(nil)) != sha256.Sum256(up) || <-got != sha256.Sum256(down) {
			t.Error("other bytes came than were sent")
		}
		// A tenth of a second's bytes are free.
		if least := time.Second * (size - rate/10) / rate; took < least {
			t.Errorf("%d bytes took %v, want at least %v", size, took, least)
		}
		if _, err := s.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// Sessions share a bandwidth, and all of them get some.
func TestShareRate(t *testing.T) {
	t.Parallel()
	const rate, size, sessions = 8 << 20, 1 << 20, 4
	eachWay(t, func(t *testing.T, start func(a, b net.Conn, opts ...Option) *Session) {
		shared := NewBandwidth(rate)
		began := time.Now()
		done := make(chan int64)
		for range sessions {
			client, a, b, server := joined(t)
			start(a, b, ShareRate(shared, nil), MaxRate(rate, 0))
			go send(client, make([]byte, size))
			go func() {
				n, _ := io.Copy(io.Discard, server)
				server.Close()
				client.Close()
				done <- n
			}()
		}
		for range sessions {
			if n := <-done; n != size {
				t.Errorf("%d bytes of %d", n, size)
			}
		}
		if took, least := time.Since(began), time.Second*(sessions*size-rate/10)/rate; took < least {
			t.Errorf("%d bytes took %v, want at least %v", sessions*size, took, least)
		}
	})
}

// A session that waits for bandwidth can be stopped, and what it has not read is
// still there.
func TestStopWhileBraked(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, start func(a, b net.Conn, opts ...Option) *Session) {
		client, a, b, server := joined(t)
		s := start(a, b, MaxRate(1, 1))
		sent := bytes.Repeat([]byte("0123456789"), 1000)
		if _, err := client.Write(sent); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := io.CopyN(&got, server, 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), bandwidthPatience)
		defer cancel()
		r, err := s.Stop(ctx)
		if err != nil || ctx.Err() != nil || r.AToB.Reason != Stopped {
			t.Fatalf("%v, %v, %v", r, err, ctx.Err())
		}
		b.Close()
		_, _ = io.Copy(&got, server)
		client.Close()
		_, _ = io.Copy(&got, a)
		got.Write(r.AToB.Undelivered)
		if !bytes.Equal(got.Bytes(), sent) {
			t.Errorf("%d bytes of %d are there", got.Len(), len(sent))
		}
	})
}

// Waiting for bandwidth is not idleness.
func TestBrakedIsNotIdle(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, start func(a, b net.Conn, opts ...Option) *Session) {
		client, a, b, server := joined(t)
		if _, err := client.Write(make([]byte, 310)); err != nil {
			t.Fatal(err)
		}
		s := start(a, b, MaxRate(100, 0), IdleTimeout(700*time.Millisecond)) // a turn a second
		if _, err := io.ReadFull(server, make([]byte, 310)); err != nil {
			t.Fatal(err)
		}
		// Now it is.
		if r, err := s.Wait(); !errors.Is(err, ErrIdleTimeout) {
			t.Errorf("%v, %v", r, err)
		}
	})
}

func TestNegativeRate(t *testing.T) {
	t.Parallel()
	_, a, b, _ := joined(t)
	if _, err := Start(a, b, MaxRate(-1, 0)); err == nil {
		t.Error("a negative rate is taken")
	}
}
