package splice_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// handOn ends s and goes on with it, as another process would. It returns nil if
// s has ended by itself.
func handOn(t *testing.T, s *splice.Session, opts ...splice.Option) *splice.Session {
	t.Helper()
	if !s.HandOver() {
		t.Fatal("it can't be handed over")
	}
	select {
	case <-s.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the session does not end")
	}
	r, _ := s.Wait()
	a, b, err := s.Conns()
	if errors.Is(err, syscall.EBADF) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s.Past())
	if err != nil {
		t.Fatal(err)
	}
	var past splice.Past
	if err := json.Unmarshal(text, &past); err != nil {
		t.Fatal(err)
	}
	opts = append(opts, splice.Own(), splice.Continue(past), splice.Prefetched(r.AToB.Undelivered, r.BToA.Undelivered))
	next, err := splice.Start(a, b, opts...)
	if err != nil {
		t.Fatalf("continue %+v: %v", past, err)
	}
	return next
}

func owned(t *testing.T, a, b net.Conn, opts ...splice.Option) *splice.Session {
	t.Helper()
	s, err := splice.Start(a, b, append(opts, splice.Own())...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// unixPair is tcpPair for unix sockets.
func unixPair(t *testing.T) (relay, peer net.Conn) {
	t.Helper()
	near, far := copyUnix(t, "unix")
	_ = far.SetDeadline(time.Now().Add(30 * time.Second))
	return near, far
}

// Streams in both directions cross many hand-overs, each in the middle of
// something, without a byte lost, doubled or out of place.
func TestHandOverInMidTransfer(t *testing.T) {
	pairs := map[string]func(*testing.T) (net.Conn, net.Conn){
		"tcp":  func(t *testing.T) (net.Conn, net.Conn) { return tcpPair(t) },
		"unix": unixPair,
	}
	for _, engine := range []splice.Engine{splice.EngineCopy, splice.EngineSplice, splice.EngineAuto} {
		for name, pair := range pairs {
			t.Run(engine.String()+"-"+name, func(t *testing.T) {
				testnet.Leaks(t)
				a, peerA := pair(t)
				b, peerB := pair(t)
				const size = 24 << 20
				var wg sync.WaitGroup
				var sent, got [2][sha256.Size]byte
				for i, peer := range []net.Conn{peerA, peerB} {
					data := make([]byte, size)
					r := rand.New(rand.NewPCG(uint64(i), 7))
					for j := 0; j < len(data); j += 8 {
						data[j] = byte(r.Uint32())
					}
					sent[i] = sha256.Sum256(data)
					wg.Go(func() {
						if _, err := io.Copy(peer, bytes.NewReader(data)); err != nil {
							t.Error(err)
						}
						closeWriter(peer)
					})
					wg.Go(func() {
						h := sha256.New()
						if _, err := io.Copy(h, peer); err != nil {
							t.Error(err)
						}
						h.Sum(got[1-i][:0])
					})
				}
				s := owned(t, a, b, splice.Use(engine))
				began := s.Stats().Started
				// The last of them has what is left to itself: on a busy machine none before may come to splice.
				const most = 50
				times, between := 0, time.Duration(0)
				for times < most {
					asked := time.Now()
					next := handOn(t, s, splice.Use(engine))
					if next == nil {
						break
					}
					s = next
					times++
					between += time.Since(asked)
				}
				r, err := s.Wait()
				wg.Wait()
				if err != nil || r.AToB.Reason != splice.EOF || r.BToA.Reason != splice.EOF || r.AToB.Bytes != size || r.BToA.Bytes != size {
					t.Errorf("ended with %v, %v", r, err)
				}
				if got != sent {
					t.Error("what arrived is not what was sent")
				}
				if d := r.Stats.Started.Sub(began); d < -time.Second || d > between+time.Second {
					t.Errorf("the start has moved by %v, and it was in nobody's hands for %v at most", d, between)
				}
				if engine == splice.EngineSplice && r.Stats.AToB.Spliced == 0 {
					t.Error("nothing was spliced")
				}
				if times == 0 {
					t.Error("it was over before it was handed over")
				}
			})
		}
	}
}

// The direction that has ended stays ended, the other goes on, also when the FINs
// of both sides are here already and bytes are still on their way.
func TestHandOverHalfClosed(t *testing.T) {
	testnet.Leaks(t)
	a, peerA := tcpPair(t)
	b, peerB := tcpPair(t)
	_ = a.SetWriteBuffer(4 << 10)
	_ = peerA.SetReadBuffer(4 << 10)
	s := owned(t, a, b)
	send := func(c net.Conn, p []byte) {
		t.Helper()
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	send(peerA, []byte("question"))
	closeWriter(peerA)
	if q, err := io.ReadAll(peerB); err != nil || string(q) != "question" {
		t.Fatalf("got %q, %v", q, err)
	}
	s = handOn(t, s)
	if st := s.Stats(); st.AToB.Reason != splice.EOF || st.AToB.Bytes != 8 || st.BToA.Reason != splice.Running {
		t.Errorf("after the first hand-over %+v", st)
	}
	answer := bytes.Repeat([]byte("answer "), 10<<10)
	send(peerB, answer)
	_ = peerB.Close()
	s = handOn(t, s)
	got := make([]byte, 1000)
	if _, err := io.ReadFull(peerA, got); err != nil {
		t.Fatal(err)
	}
	if s = handOn(t, s); s == nil {
		t.Fatal("it has ended, and nobody has read")
	}
	rest, err := io.ReadAll(peerA)
	if err != nil || !bytes.Equal(append(got, rest...), answer) {
		t.Errorf("got %d bytes, %v; want %d", len(got)+len(rest), err, len(answer))
	}
	if r, err := s.Wait(); err != nil || r.BToA.Reason != splice.EOF || r.BToA.Bytes != int64(len(answer)) {
		t.Errorf("ended with %v, %v", r, err)
	}
}

// A limit of bytes holds over all sessions together, to the byte.
func TestHandOverMaxBytes(t *testing.T) {
	testnet.Leaks(t)
	a, peerA := tcpPair(t)
	b, peerB := tcpPair(t)
	const limit = 1<<20 + 13
	s := owned(t, a, b, splice.MaxBytes(limit, 0))
	data := make([]byte, 2<<20)
	go func() { _, _ = peerA.Write(data) }() // it is reset in the end
	got := make([]byte, 1000)
	if _, err := io.ReadFull(peerB, got); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s = handOn(t, s)
		if _, err := io.ReadFull(peerB, got); err != nil {
			t.Fatal(err)
		}
	}
	rest, err := io.Copy(io.Discard, io.LimitReader(peerB, limit-4000))
	if err != nil || rest != limit-4000 {
		t.Errorf("%d bytes, %v", rest, err)
	}
	for deadline := time.Now().Add(30 * time.Second); s.Stats().AToB.Reason == splice.Running; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", s.Stats())
		}
	}
	s = handOn(t, s) // the limit stays reached
	if st := s.Stats().AToB; st.Reason != splice.Max || st.Bytes != limit {
		t.Errorf("after the limit %+v", st)
	}
	if _, err := io.WriteString(peerB, "back"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(peerA, got[:4]); err != nil || string(got[:4]) != "back" {
		t.Errorf("got %q, %v", got[:4], err)
	}
	s.Abort()
}

// Clocks go on: handed over again and again, sessions reach their limits all the
// same.
func TestHandOverClocks(t *testing.T) {
	for name, c := range map[string]struct {
		option splice.Option
		half   bool
		want   splice.Reason
	}{
		"idle":       {splice.IdleTimeout(300 * time.Millisecond), false, splice.Idle},
		"lifetime":   {splice.MaxLifetime(300 * time.Millisecond), false, splice.Lifetime},
		"half-close": {splice.HalfCloseTimeout(300 * time.Millisecond), true, splice.HalfClosed},
	} {
		t.Run(name, func(t *testing.T) {
			testnet.Leaks(t)
			a, peerA := tcpPair(t)
			b, peerB := tcpPair(t)
			s := owned(t, a, b, c.option)
			if c.half {
				closeWriter(peerA)
				if _, err := io.ReadAll(peerB); err != nil {
					t.Fatal(err)
				}
			}
			times := 0
			for deadline := time.Now().Add(30 * time.Second); ; times++ {
				next := handOn(t, s)
				if next == nil {
					break
				}
				s = next
				if time.Now().After(deadline) {
					t.Fatal("the limit is never reached")
				}
				time.Sleep(20 * time.Millisecond) // of the time that goes on
			}
			if r, _ := s.Wait(); r.BToA.Reason != c.want || times == 0 {
				t.Errorf("after %d hand-overs ended with %v", times, r)
			}
		})
	}
}

// What came before a reset is delivered, and then the reset, wherever the
// hand-over falls.
func TestHandOverReset(t *testing.T) {
	testnet.Leaks(t)
	for range 50 {
		a, peerA := tcpPair(t)
		b, peerB := tcpPair(t)
		s := owned(t, a, b)
		if _, err := io.WriteString(peerA, "last words"); err != nil {
			t.Fatal(err)
		}
		_ = peerA.SetLinger(0)
		_ = peerA.Close()
		for s != nil {
			s = handOn(t, s)
		}
		if got, err := io.ReadAll(peerB); string(got) != "last words" || !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("got %q, %v; want all of it and a reset", got, err)
		}
	}
}

func TestHandOverRefused(t *testing.T) {
	testnet.Leaks(t)
	a, peerA := tcpPair(t)
	b, peerB := tcpPair(t)
	ended := splice.PastDirection{Reason: splice.EOF}
	for name, past := range map[string]splice.Past{
		"both ended":     {AToB: ended, BToA: ended},
		"negative bytes": {AToB: splice.PastDirection{Bytes: -1}},
		"over the limit": {AToB: splice.PastDirection{Bytes: 2, Max: 1}},
		"negative age":   {Age: -1},
		"negative limit": {Idle: -1},
	} {
		if s, err := splice.Start(a, b, splice.Continue(past)); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v, %v; want %v", name, s, err, syscall.EINVAL)
		}
	}
	if _, err := splice.Start(hidden{a}, hidden{b}, splice.Continue(splice.Past{})); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without descriptors: %v", err)
	}
	s := owned(t, hidden{a}, hidden{b})
	if s.CanHandOver() || s.HandOver() {
		t.Error("a session without descriptors is said to be handed over")
	}
	if _, err := io.WriteString(peerA, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(peerB, make([]byte, 1)); err != nil {
		t.Errorf("it does not go on: %v", err)
	}
	s.Abort()
}
