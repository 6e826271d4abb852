package portable

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
)

// patience is how long anything may take that should happen at once.
const patience = 20 * time.Second

// relay starts a session between two fresh pairs and returns the far ends.
func relay(t *testing.T, ka, kb kind, edit func(*Spec)) (s *Session, a, b io.ReadWriteCloser) {
	t.Helper()
	nearA, a := ka.pair(t)
	nearB, b := kb.pair(t)
	spec := Spec{A: nearA, B: nearB, Why: engine.WhyNoDescriptor}
	if edit != nil {
		edit(&spec)
	}
	s = Start(spec)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Stop(ctx)
	})
	return s, a, b
}

func wait(t *testing.T, s *Session) engine.Result {
	t.Helper()
	select {
	case <-s.Done():
		return s.Wait()
	case <-time.After(patience):
		t.Fatalf("the session goes on: %+v", s.Stats())
		panic("unreachable")
	}
}

func write(t *testing.T, w io.Writer, p string) {
	t.Helper()
	if n, err := io.WriteString(w, p); err != nil {
		t.Fatalf("write %q: %d, %v", p, n, err)
	}
}

func read(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

func TestBothWaysWithSHA256(t *testing.T) {
	const size = 1 << 20
	for _, ka := range kinds {
		for _, kb := range kinds {
			if ka.halfClose != kb.halfClose {
				continue // one end would wait for a FIN that its type can't carry
			}
			t.Run(ka.name+"+"+kb.name, func(t *testing.T) {
				s, a, b := relay(t, ka, kb, nil)
				var wg sync.WaitGroup
				sums := make([]hash.Hash, 4)
				for i, end := range []io.ReadWriteCloser{a, b} {
					sent, got := sha256.New(), sha256.New()
					sums[2*i], sums[2*(1-i)+1] = sent, got
					other := []io.ReadWriteCloser{b, a}[i]
					wg.Go(func() {
						sendRandom(t, end, sent, size)
						if c, ok := end.(interface{ CloseWrite() error }); ok {
							if err := c.CloseWrite(); err != nil {
								t.Error(err)
							}
						}
					})
					wg.Go(func() {
						r := io.Reader(other)
						if !ka.halfClose {
							r = io.LimitReader(other, size)
						}
						if _, err := io.Copy(got, r); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if !ka.halfClose {
					a.Close()
					b.Close()
				}
				res := wait(t, s)
				for i := range 2 {
					if sent, got := sums[2*i].Sum(nil), sums[2*i+1].Sum(nil); !bytes.Equal(sent, got) {
						t.Errorf("direction %d: bytes differ", i)
					}
				}
				for _, e := range []engine.End{res.AToB, res.BToA} {
					if e.Bytes != size || len(e.Undelivered) != 0 || ka.halfClose && e.Reason != engine.EOF {
						t.Errorf("end %+v", e)
					}
				}
			})
		}
	}
}

func sendRandom(t *testing.T, w io.Writer, sum hash.Hash, size int) {
	var seed [32]byte
	src := rand.NewChaCha8(seed)
	buf := make([]byte, 100_000)
	for size > 0 {
		p := buf[:min(size, 1+rand.IntN(len(buf)))]
		_, _ = src.Read(p)
		sum.Write(p)
		if _, err := w.Write(p); err != nil {
			t.Error(err)
			return
		}
		size -= len(p)
	}
}

func TestHalfClose(t *testing.T) {
	for _, k := range kinds[:2] {
		t.Run(k.name, func(t *testing.T) {
			s, a, b := relay(t, k, k, nil)
			write(t, a, "request")
			closeWrite(t, a)
			got, err := io.ReadAll(b)
			if err != nil || string(got) != "request" {
				t.Fatalf("read %q, %v", got, err)
			}
			if r := s.Stats().BToA.Reason; r != engine.Running {
				t.Fatalf("the other direction: %v", r)
			}
			write(t, b, "answer")
			closeWrite(t, b)
			if got, err = io.ReadAll(a); err != nil || string(got) != "answer" {
				t.Fatalf("read %q, %v", got, err)
			}
			res := wait(t, s)
			if res.AToB.Reason != engine.EOF || res.BToA.Reason != engine.EOF || res.AToB.Err != nil {
				t.Fatalf("%+v", res)
			}
		})
	}
}

func closeWrite(t *testing.T, c any) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// Without CloseWrite the FIN must not cost the other direction.
func TestLateFIN(t *testing.T) {
	tcp, pipe := kinds[0], kinds[2]
	s, a, b := relay(t, tcp, pipe, nil)
	go func() { _, _ = io.WriteString(a, "request"); _ = a.(*net.TCPConn).CloseWrite() }()
	read(t, b, "request")
	for s.Stats().AToB.Reason == engine.Running {
		time.Sleep(time.Millisecond) // polls a condition
	}
	write(t, b, "answer")
	read(t, a, "answer")
	b.Close()
	if got, err := io.ReadAll(a); err != nil || len(got) != 0 {
		t.Fatalf("read %q, %v", got, err)
	}
	if res := wait(t, s); res.AToB.Reason != engine.EOF || res.BToA.Reason != engine.EOF {
		t.Fatalf("%+v", res)
	}
}

func TestLateFINClosesAtTheEnd(t *testing.T) {
	k := kinds[2]
	nearA, a := k.pair(t)
	nearB, b := k.pair(t)
	s := Start(Spec{A: nearA, B: nearB})
	a.Close()
	b.Close()
	if res := wait(t, s); res.AToB.Reason != engine.EOF || res.BToA.Reason != engine.EOF {
		t.Fatalf("%+v", res)
	}
	if _, err := nearB.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("still open: %v", err)
	}
}

func TestPrefetchedFirst(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		_, a, b := relay(t, k, k, func(sp *Spec) {
			sp.FromA, sp.FromB = []byte("early a "), []byte("early b ")
		})
		done := make(chan struct{})
		go func() { defer close(done); read(t, b, "early a late a") }()
		write(t, a, "late a")
		<-done
		read(t, a, "early b ")
	})
}

func TestMaxBytesLeavesTheNextByte(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		nearA, a := k.pair(t)
		nearB, b := k.pair(t)
		s := Start(Spec{A: nearA, B: nearB, FromA: []byte("01"), Limits: engine.Limits{MaxAToB: 5, MaxBToA: 3}})
		sent := make(chan error, 1)
		go func() { _, err := io.WriteString(a, "23456789"); sent <- err }()
		read(t, b, "01234")
		go func() { _, err := io.WriteString(b, "abcdef"); sent <- err }()
		read(t, a, "abc")
		res := wait(t, s)
		if res.AToB.Bytes != 5 || res.AToB.Reason != engine.Max || res.AToB.Err != nil || res.BToA.Bytes != 3 || res.BToA.Reason != engine.Max {
			t.Fatalf("%+v", res)
		}
		// Both connections are open, in both directions, and keep the rest.
		read(t, nearA, "56789")
		read(t, nearB, "def")
		for range 2 {
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
		go func() { _, err := io.WriteString(nearB, "more"); sent <- err }()
		read(t, b, "more")
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	})
}

func TestMaxBytesBelowPrefetched(t *testing.T) {
	k := kinds[0]
	s, a, b := relay(t, k, k, func(sp *Spec) {
		sp.FromA, sp.FromB = []byte("0123456789"), []byte("abc")
		sp.Limits = engine.Limits{MaxAToB: 4, MaxBToA: 3}
	})
	read(t, b, "0123")
	read(t, a, "abc")
	res := wait(t, s)
	if res.AToB.Reason != engine.Max || string(res.AToB.Undelivered) != "456789" || len(res.BToA.Undelivered) != 0 {
		t.Fatalf("%+v", res)
	}
}

func TestIdleIsSharedByBothDirections(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		const idle = 150 * time.Millisecond
		s, a, b := relay(t, k, k, func(sp *Spec) { sp.Limits.Idle = idle })
		// One direction only, for longer than the limit.
		begin := time.Now()
		for time.Since(begin) < 3*idle {
			done := make(chan struct{})
			go func() { defer close(done); _, _ = io.WriteString(a, "x") }()
			read(t, b, "x")
			<-done
			time.Sleep(idle / 10) // the pause is the traffic
		}
		last := s.Stats().LastProgress
		res := wait(t, s)
		if res.AToB.Reason != engine.Idle || res.BToA.Reason != engine.Idle || !errors.Is(res.AToB.Err, engine.ErrIdle) {
			t.Fatalf("%+v", res)
		}
		if d := res.Ended.Sub(last); d < idle {
			t.Fatalf("ended %v after the last byte", d)
		}
	})
}

func TestHalfCloseClock(t *testing.T) {
	k := kinds[0]
	s, a, b := relay(t, k, k, func(sp *Spec) { sp.Limits.Idle, sp.Limits.HalfClose = time.Hour, 50*time.Millisecond })
	write(t, a, "x")
	closeWrite(t, a)
	if got, err := io.ReadAll(b); string(got) != "x" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	res := wait(t, s)
	if res.AToB.Reason != engine.EOF || res.BToA.Reason != engine.HalfClosed {
		t.Fatalf("%+v", res)
	}
}

func TestLifetime(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		const life = 100 * time.Millisecond
		s, a, b := relay(t, k, k, func(sp *Spec) { sp.Limits.Lifetime = life })
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				if _, err := io.WriteString(a, "busy"); err != nil {
					return
				}
			}
		})
		wg.Go(func() { _, _ = io.Copy(io.Discard, b) })
		res := wait(t, s)
		a.Close()
		b.Close()
		wg.Wait()
		if res.AToB.Reason != engine.Lifetime || res.BToA.Reason != engine.Lifetime || res.AToB.Bytes == 0 {
			t.Fatalf("%+v", res)
		}
		if d := res.Ended.Sub(res.Stats.Started); d < life {
			t.Fatalf("lived %v", d)
		}
	})
}

func TestStopGivesTheConnectionsBack(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		if !k.deadlines {
			t.Skip("it has no deadlines: it is closed")
		}
		nearA, a := k.pair(t)
		nearB, b := k.pair(t)
		s := Start(Spec{A: nearA, B: nearB})
		done := make(chan struct{})
		go func() { defer close(done); _, _ = io.WriteString(a, "before") }()
		read(t, b, "before")
		<-done
		res := s.Stop(context.Background())
		if res.AToB.Reason != engine.Stopped || res.BToA.Reason != engine.Stopped || !errors.Is(res.AToB.Err, engine.ErrStopped) {
			t.Fatalf("%+v", res)
		}
		for _, p := range [][2]io.ReadWriter{{a, nearA}, {nearA, a}, {b, nearB}, {nearB, b}} {
			sent := make(chan error, 1)
			go func() { _, err := io.WriteString(p[0], "after"); sent <- err }()
			read(t, p[1], "after")
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestStopClosesWhatHasNoDeadlines(t *testing.T) {
	s, a, _ := relay(t, kinds[4], kinds[4], nil)
	res := s.Stop(context.Background())
	if res.AToB.Reason != engine.Stopped || res.BToA.Reason != engine.Stopped {
		t.Fatalf("%+v", res)
	}
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("still open: %v", err)
	}
}

// No byte may be lost: sent = received + undelivered + still on the source.
func TestStopAgainstAStalledReader(t *testing.T) {
	for _, k := range []kind{kinds[0], kinds[2], kinds[3]} {
		t.Run(k.name, func(t *testing.T) {
			nearA, a := k.pair(t)
			nearB, b := k.pair(t)
			s := Start(Spec{A: nearA, B: nearB})
			var pattern [1 << 16]byte
			for i := range pattern {
				pattern[i] = byte(i * 7 >> 3)
			}
			sent := make(chan int, 1)
			go func() {
				total := 0
				for {
					n, err := a.Write(pattern[total%len(pattern):])
					if total += n; err != nil {
						sent <- total
						return
					}
				}
			}()
			// One byte is read. Then every buffer fills up, until nothing moves.
			one := make([]byte, 1)
			if _, err := io.ReadFull(b, one); err != nil {
				t.Fatal(err)
			}
			for n := int64(-1); ; time.Sleep(50 * time.Millisecond) {
				if now := s.Stats().AToB.Bytes; now == n {
					break
				} else {
					n = now
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			res := s.Stop(ctx)
			if res.AToB.Reason != engine.Stopped || len(res.AToB.Undelivered) == 0 {
				t.Fatalf("reason %v, %d bytes undelivered", res.AToB.Reason, len(res.AToB.Undelivered))
			}
			got := bytes.Clone(one)
			rest := make([]byte, res.AToB.Bytes-1)
			if _, err := io.ReadFull(b, rest); err != nil {
				t.Fatal(err)
			}
			got = append(append(got, rest...), res.AToB.Undelivered...)
			setWriteDeadline(t, a)
			total := 0
			drained := make(chan []byte, 1)
			go func() {
				var left []byte
				buf := make([]byte, 1<<16)
				for {
					n, err := nearA.Read(buf)
					left = append(left, buf[:n]...)
					if err != nil {
						drained <- left
						return
					}
				}
			}()
			total = <-sent
			a.Close()
			got = append(got, <-drained...)
			if len(got) != total {
				t.Fatalf("sent %d, accounted for %d", total, len(got))
			}
			for i := range got {
				if got[i] != pattern[i%len(pattern)] {
					t.Fatalf("byte %d differs", i)
				}
			}
		})
	}
}

func setWriteDeadline(t *testing.T, c any) {
	t.Helper()
	if err := c.(interface{ SetWriteDeadline(time.Time) error }).SetWriteDeadline(past()); err != nil {
		t.Fatal(err)
	}
}

func TestResetBySource(t *testing.T) {
	for _, k := range kinds[:2] {
		t.Run(k.name, func(t *testing.T) {
			s, a, b := relay(t, k, k, nil)
			payload := strings.Repeat("last words ", 10_000)
			go func() {
				_, _ = io.WriteString(a, payload)
				for s.Stats().AToB.Bytes < int64(len(payload)) {
					time.Sleep(time.Millisecond) // a RST purges what is not read yet
				}
				abort(a)
			}()
			got, err := io.ReadAll(b)
			if string(got) != payload {
				t.Fatalf("got %d bytes of %d", len(got), len(payload))
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("not a reset: %v", err)
			}
			res := wait(t, s)
			if res.AToB.Reason != engine.ResetBySource || res.BToA.Reason != engine.ResetByDrain || res.AToB.Err == nil {
				t.Fatalf("%+v", res)
			}
		})
	}
}

func abort(c any) {
	if n, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = n.NetConn()
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.(*net.TCPConn).Close()
}

func TestResetByDrain(t *testing.T) {
	for _, k := range kinds[:2] {
		for round := range 20 {
			s, a, b := relay(t, k, k, nil)
			var wg sync.WaitGroup
			var werr error
			wg.Go(func() {
				p := make([]byte, 1<<16)
				for werr == nil {
					_, werr = a.Write(p)
				}
			})
			if _, err := io.ReadFull(b, make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			abort(b)
			wg.Wait()
			if !errors.Is(werr, syscall.ECONNRESET) && !errors.Is(werr, syscall.EPIPE) {
				t.Fatalf("%s round %d: not a reset: %v", k.name, round, werr)
			}
			res := wait(t, s)
			if res.AToB.Reason != engine.ResetByDrain || res.BToA.Reason != engine.ResetBySource && res.BToA.Reason != engine.ResetByDrain {
				t.Fatalf("%s round %d: %v %v", k.name, round, res.AToB, res.BToA.Reason)
			}
		}
	}
}

// A TLS connection that ends inside a record was cut, and its other side must
// not see a clean end.
func TestTruncatedTLS(t *testing.T) {
	s, a, b := relay(t, kinds[1], kinds[0], nil)
	write(t, a, "half a mess")
	read(t, b, "half a mess")
	raw := a.(interface{ NetConn() net.Conn }).NetConn()
	write(t, raw, "\x17\x03\x03\x00\x40half a record")
	_ = raw.Close()
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("not a reset: %v", err)
	}
	if res := wait(t, s); res.AToB.Reason != engine.ResetBySource || !errors.Is(res.AToB.Err, io.ErrUnexpectedEOF) {
		t.Fatalf("%+v", res)
	}
}

func TestClosedDrain(t *testing.T) {
	s, a, b := relay(t, kinds[2], kinds[4], nil)
	b.Close()
	_, _ = io.WriteString(a, "lost?")
	res := wait(t, s)
	if res.AToB.Reason != engine.ResetByDrain && res.BToA.Reason != engine.EOF {
		t.Fatalf("%+v", res)
	}
	if string(res.AToB.Undelivered) != "lost?" {
		t.Fatalf("undelivered %q", res.AToB.Undelivered)
	}
}

func TestLiveStats(t *testing.T) {
	s, a, b := relay(t, kinds[2], kinds[2], nil)
	before := s.Stats()
	if before.AToB.Engine != engine.Copy || before.AToB.Why != engine.WhyNoDescriptor || !before.LastProgress.Equal(before.Started) {
		t.Fatalf("%+v", before)
	}
	write(t, a, "") // net.Pipe: a zero-length write is not a byte
	go func() { _, _ = io.WriteString(a, "12345") }()
	read(t, b, "12345")
	for s.Stats().AToB.Bytes != 5 {
		time.Sleep(time.Millisecond) // the count follows Write's return
	}
	if st := s.Stats(); !st.LastProgress.After(st.Started) || st.BToA.Bytes != 0 || st.AToB.Reason != engine.Running {
		t.Fatalf("%+v", st)
	}
}

func TestOnEndOnceBeforeDone(t *testing.T) {
	calls := make(chan engine.Result, 2)
	var s *Session
	started := make(chan struct{})
	s, _, _ = relay(t, kinds[0], kinds[0], func(sp *Spec) {
		sp.OnEnd = func(r engine.Result) {
			<-started
			select {
			case <-s.Done():
				t.Error("done before OnEnd")
			default:
			}
			calls <- r
		}
	})
	close(started)
	res := s.Stop(context.Background())
	if got := <-calls; got.Ended != res.Ended || len(calls) != 0 {
		t.Fatalf("%+v", got)
	}
}

func TestDeadlinesOfTheControlPhaseEnd(t *testing.T) {
	k := kinds[0]
	nearA, a := k.pair(t)
	nearB, b := k.pair(t)
	_ = nearA.(net.Conn).SetDeadline(past())
	s := Start(Spec{A: nearA, B: nearB})
	write(t, a, "x")
	read(t, b, "x")
	s.Stop(context.Background())
}

// TLS is not begun yet: a FIN must wait for its handshake.
func TestFINBeforeHandshake(t *testing.T) {
	server, client := tlsConfig(t)
	near, far := tcpPair(t)
	nearA, a := tcpPair(t)
	s := Start(Spec{A: nearA, B: tlsServer(near, server)})
	c := tlsClient(far, client)
	closeWrite(t, a)
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("%d, %v", n, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if res := wait(t, s); res.AToB.Reason != engine.EOF || res.BToA.Reason != engine.EOF {
		t.Fatalf("%+v", res)
	}
}
