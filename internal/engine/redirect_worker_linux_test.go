package engine

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// What follows is about the kernel's worker, which sends what was redirected,
// when it is late.

// late makes a session on a loop of the test's own, with five bytes redirected
// and one more that the worker seems to have: a byte that is sent to b's socket
// takes its place.
func late(t *testing.T) (*loop, owned) {
	t.Helper()
	r := new(Reactor)
	r.init()
	empty := emptyMaps(t, r)
	l, err := newLoop(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.close()
		empty()
	})
	o := onLoop(t, l)
	l.join(o.Session)
	for i := range o.ends {
		o.ends[i].event(sys.EpollOut)
	}
	o.run(l)
	o.carry()
	if n := o.Stats().AToB.Redirected; n != 5 {
		t.Fatalf("%d bytes redirected, want 5", n)
	}
	o.dirs[0].lane.Forwarded(1)
	return l, o
}

// finish has the session's timer ring, on a clock that hurries, until it is over.
func (o owned) finish(l *loop) {
	o.t.Helper()
	for range 10_000 {
		if o.over {
			return
		}
		l.now = max(l.now, o.due())
		o.expire(l)
	}
	o.t.Fatal("the session does not end")
}

// A lifetime ends while the worker has bytes that count as delivered: once they
// were thrown away at that moment.
func TestRedirectLifetimeAndLateWorker(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	t.Run("sends", func(t *testing.T) {
		l, o := late(t)
		o.stopAll(l, Lifetime, ErrLifetime)
		if o.over {
			t.Fatal("the session is over before the worker has sent everything")
		}
		if _, err := sys.Send(o.fds[1], []byte("!")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 2)
		if n, err := o.peers[1].Read(b); n != 1 || b[0] != '!' || err != nil {
			t.Fatalf("read %q, %v", b[:n], err)
		}
		o.finish(l)
		if r := o.dirs[0].reason(); r != Lifetime {
			t.Errorf("reason %v: %v", r, o.dirs[0].err)
		}
		if _, err := o.peers[1].Read(b); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer then reads %v, want a reset", err)
		}
	})
	t.Run("never sends", func(t *testing.T) {
		l, o := late(t)
		o.stopAll(l, Lifetime, ErrLifetime)
		o.finish(l)
		if d := &o.dirs[0]; d.reason() != Failed || !errors.Is(d.err, syscall.EIO) {
			t.Errorf("the session ended because of %v: %v", d.reason(), d.err)
		}
		if _, err := o.peers[1].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the peer reads %v, want a reset: bytes are lost", err)
		}
	})
}

// A socket with a low limit of bytes that were not sent yet (TCP_NOTSENT_LOWAT)
// takes less than its send buffer has room for. What one peer sends is not held
// up by what the other does not read: once it was, behind what the worker could
// not send.
func TestRedirectUnsentLimit(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	const size = 8 << 20
	var r Reactor
	empty := emptyMaps(t, &r)
	fds, peers := ends(t)
	for i, fd := range fds {
		if err := sys.SetUnsentMost(fd, 16<<10); err != nil {
			t.Fatal(err)
		}
		if err := peers[i].SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	o := startWith(t, &r, fds, peers, Limits{})
	var sent atomic.Int64
	blocked := make(chan error, 1)
	go func() { // nobody reads it at first
		for at := int64(0); at < size; {
			n, err := peers[1].Write(sequence(1).part(at, 64<<10))
			at = sent.Add(int64(n))
			if err != nil {
				blocked <- err
				return
			}
		}
		blocked <- nil
	}()
	for last, since := int64(0), time.Now(); time.Since(since) < 300*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		if now := sent.Load(); now != last {
			last, since = now, time.Now()
		}
	}
	go func() {
		for at := int64(0); at < size; at += 64 << 10 {
			if _, err := peers[0].Write(sequence(2).part(at, 64<<10)); err != nil {
				return
			}
		}
	}()
	readAll := func(i int, q sequence) {
		b := make([]byte, 64<<10)
		for at := int64(0); at < size; at += int64(len(b)) {
			if _, err := io.ReadFull(peers[i], b); err != nil {
				t.Fatalf("peer %d after %d of %d bytes: %v", i, at, size, err)
			}
			if err := q.check(b, at); err != nil {
				t.Fatalf("peer %d: %v", i, err)
			}
		}
	}
	readAll(1, 2)
	readAll(0, 1)
	if err := <-blocked; err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	<-o.Done()
	empty()
}

// The patience with bytes that are missing from a source that has ended counts
// for this direction, and not while the worker may have them behind what it has
// to send: once the second direction to end had none left.
func TestRedirectMissedPatience(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	l, o := late(t)
	r := o.redirect
	missed := func(d *direction, after time.Duration) {
		t.Helper()
		l.now += after
		if r.missed(l, o.Session, d, 1); o.ended() {
			t.Fatalf("gave up: %v", d.err)
		}
	}
	missed(&o.dirs[0], 0)
	missed(&o.dirs[1], 10*missedPatience)
	missed(&o.dirs[1], 10*missedPatience) // b's are behind what is redirected to b
	if _, err := sys.Send(o.fds[1], []byte("!")); err != nil {
		t.Fatal(err)
	}
	missed(&o.dirs[1], missedPatience/2)
	l.now += 2 * missedPatience
	if r.missed(l, o.Session, &o.dirs[1], 1); !o.over {
		t.Error("the session waits for what never comes")
	}
}
