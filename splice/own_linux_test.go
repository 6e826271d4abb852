package splice_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// tcpPair returns the two ends of a connection, both with a deadline.
func tcpPair(t *testing.T) (relay, peer *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	r, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	_ = p.SetDeadline(time.Now().Add(30 * time.Second))
	return r.(*net.TCPConn), p.(*net.TCPConn)
}

// hidden is a connection without a descriptor: goroutines carry it.
type hidden struct{ net.Conn }

func (h hidden) CloseWrite() error { return h.Conn.(*net.TCPConn).CloseWrite() }

func (h hidden) SetLinger(sec int) error { return h.Conn.(*net.TCPConn).SetLinger(sec) }

func bothCarriers(t *testing.T, f func(t *testing.T, as func(*net.TCPConn) net.Conn)) {
	t.Run("loops", func(t *testing.T) { f(t, func(c *net.TCPConn) net.Conn { return c }) })
	t.Run("goroutines", func(t *testing.T) { f(t, func(c *net.TCPConn) net.Conn { return hidden{c} }) })
}

func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer saw %v, want a reset", err)
	}
}

// Nobody can give connections back to the caller of Relay: it closes what it
// owns, also when its context ends.
func TestRelayClosesWhatItOwns(t *testing.T) {
	bothCarriers(t, func(t *testing.T, as func(*net.TCPConn) net.Conn) {
		testnet.Leaks(t)
		a, peerA := tcpPair(t)
		b, peerB := tcpPair(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := splice.Relay(ctx, as(a), as(b), splice.Own())
			done <- err
		}()
		if _, err := io.WriteString(peerA, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(peerB, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Relay: %v", err)
		}
		wantReset(t, peerA)
		wantReset(t, peerB)
	})
}

// Abort resets what the session owns, and leaves alone what it doesn't.
func TestAbort(t *testing.T) {
	bothCarriers(t, func(t *testing.T, as func(*net.TCPConn) net.Conn) {
		testnet.Leaks(t)
		a, peerA := tcpPair(t)
		b, peerB := tcpPair(t)
		s, err := splice.Start(as(a), as(b))
		if err != nil {
			t.Fatal(err)
		}
		if r := s.Abort(); r.AToB.Reason != splice.Stopped || r.BToA.Reason != splice.Stopped {
			t.Errorf("ended with %v", r)
		}
		if _, err := io.WriteString(a, "still open"); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(peerA, make([]byte, 10)); err != nil {
			t.Error(err)
		}

		if s, err = splice.Start(as(a), as(b), splice.Own()); err != nil {
			t.Fatal(err)
		}
		s.Abort()
		wantReset(t, peerA)
		wantReset(t, peerB)
		if _, _, err := s.Conns(); !errors.Is(err, syscall.EBADF) {
			t.Errorf("Conns after Abort: %v, want %v", err, syscall.EBADF)
		}
		s.Abort() // once more does no harm
	})
}

// A session of which one side broke in the moment of a stop leaves nothing
// behind either.
func TestAbortOfABrokenSession(t *testing.T) {
	bothCarriers(t, func(t *testing.T, as func(*net.TCPConn) net.Conn) {
		testnet.Leaks(t)
		for range 50 {
			a, peerA := tcpPair(t)
			b, peerB := tcpPair(t)
			s, err := splice.Start(as(a), as(b), splice.Own())
			if err != nil {
				t.Fatal(err)
			}
			_ = peerA.SetLinger(0)
			peerA.Close()
			s.Abort()
			wantReset(t, peerB)
		}
	})
}
