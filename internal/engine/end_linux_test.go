package engine

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// lag has peer 1 send what the session takes, but peer 0 has no room for.
func (o owned) lag() {
	o.t.Helper()
	const n = 128 << 10
	if err := o.peers[0].SetReadBuffer(4096); err != nil {
		o.t.Fatal(err)
	}
	if _, err := o.peers[1].Write(make([]byte, n)); err != nil {
		o.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); o.Stats().BToA.Bytes < n; runtime.Gosched() {
		if time.Now().After(deadline) {
			o.t.Fatalf("%d of %d bytes were taken", o.Stats().BToA.Bytes, n)
		}
	}
}

// halfEnded waits until the direction from peer 1 has ended.
func (o owned) halfEnded() {
	o.t.Helper()
	for deadline := time.Now().Add(patience); o.Stats().BToA.Reason == Running; runtime.Gosched() {
		if time.Now().After(deadline) {
			o.t.Fatal("the direction goes on")
		}
	}
}

// canceled is a context that has ended.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func (o owned) await() Result {
	o.t.Helper()
	select {
	case <-o.Done():
	case <-time.After(patience):
		o.t.Fatal("the session does not end")
	}
	return o.Result()
}

// Sockets that were shut down at a session's end are not given back by a Stop
// that comes then.
func TestStopAfterTheEndGivesNothingBack(t *testing.T) {
	var r Reactor
	o := startLimited(t, &r, Limits{Idle: 100 * time.Millisecond})
	o.lag()
	o.halfEnded() // the peers are given time to take what was sent to them
	o.Stop(canceled())
	if a, b, ok := o.Take(); ok {
		_ = sys.Close(a)
		_ = sys.Close(b)
		t.Error("connections were given back that the session has shut down")
	}
}

// A Stop whose context has ended waits for nobody, however much the receiver
// acknowledges meanwhile.
func TestStopNowDoesNotWait(t *testing.T) {
	for range 20 {
		var r Reactor
		o := startOwned(t, &r)
		o.lag()
		resetConn(t, o.peers[1]) // a RST for peer 0, once it has what was sent
		o.halfEnded()
		go func() { // slowly, so that there is always something acknowledged
			b := make([]byte, 256)
			for {
				if _, err := o.peers[0].Read(b); err != nil {
					return
				}
			}
		}()
		began := time.Now()
		o.Stop(canceled())
		if d := time.Since(began); d > patience/2 {
			t.Fatalf("Stop took %v", d)
		}
		if _, _, ok := o.Take(); ok {
			t.Fatal("connections were given back that were reset")
		}
	}
}

// A lifetime's end is an end: a reader that takes a little now and then can't
// put it off.
func TestLifetimeIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the grace")
	}
	t.Parallel()
	var r Reactor
	const lifetime = 500 * time.Millisecond
	o := startLimited(t, &r, Limits{Lifetime: lifetime})
	o.lag()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		b := make([]byte, 128) // all of it would take 20 s
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				if _, err := o.peers[0].Read(b); err != nil {
					return
				}
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	res := o.await()
	if res.BToA.Reason != Lifetime {
		t.Fatalf("ended with %v", res)
	}
	if d := res.Ended.Sub(res.Stats.Started); d > lifetime+2*LifetimeGrace {
		t.Errorf("ended after %v, want at most %v", d, lifetime+LifetimeGrace)
	}
}

// The same when the wait had begun before.
func TestLifetimeBoundsTheWaitBeforeAReset(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the grace")
	}
	t.Parallel()
	var r Reactor
	o := startLimited(t, &r, Limits{Lifetime: time.Second})
	o.lag()
	resetConn(t, o.peers[1])
	res := o.await() // peer 0 reads nothing: it would be given a minute
	if res.BToA.Reason != ResetBySource {
		t.Fatalf("ended with %v", res)
	}
}

// A Listen that fails leaves nobody accepting, and the descriptor to its
// caller.
func TestListenFailsHalfWay(t *testing.T) {
	testnet.Need(t, "cpus") // an event loop each
	testnet.Leaks(t)
	fds, _ := ends(t) // of a connection: any descriptor that can be closed
	defer func() { _ = sys.Close(fds[0]); _ = sys.Close(fds[1]) }()
	fd, err := listening()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := sys.Close(fd); err != nil {
			t.Errorf("the caller's descriptor: %v", err)
		}
	}()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	// Room for one loop: an epoll and an eventfd.
	var free [2]int
	for i := range free {
		if free[i], err = sys.Dup(fds[0]); err != nil {
			t.Fatal(err)
		}
	}
	for _, fd := range free {
		_ = sys.Close(fd)
	}
	limit := old
	limit.Cur = uint64(free[1] + 1)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	var r Reactor
	_, err = r.Listen(AcceptSpec{
		FD: fd, Admit: func() bool { return true }, Held: func(error) {},
		Accepted: func(*Session, netip.AddrPort) Way { panic("nobody connects") },
	})
	started, open := 0, 0
	for _, l := range r.loops {
		if l == nil {
			continue
		}
		started++
		l.mu.Lock()
		if len(l.posted) > 0 || len(l.ears) > 0 && l.ears[0] != nil {
			open++
		}
		l.mu.Unlock()
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("Listen: %v, want %v", err, syscall.EMFILE)
	}
	if started == 0 {
		t.Fatal("no loop was started: the test tests nothing")
	}
	if open != 0 {
		t.Errorf("%d loops may accept from the descriptor of a failed Listen", open)
	}
}

func listening() (int, error) {
	fd, err := sys.StreamSocket(syscall.AF_INET)
	if err != nil {
		return -1, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return -1, err
	}
	return fd, syscall.Listen(fd, 10)
}

// A socket that does not listen is refused at once: accept(2) would fail for
// ever.
func TestListenWantsAListener(t *testing.T) {
	fds, _ := ends(t)
	defer func() { _ = sys.Close(fds[0]); _ = sys.Close(fds[1]) }()
	var r Reactor
	if _, err := r.Listen(AcceptSpec{FD: fds[0]}); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("Listen: %v, want %v", err, syscall.EINVAL)
	}
}

// Who waits for a descriptor, or for room in a target's queue, asks ever more
// slowly.
func TestDialRetriesEverMoreSlowly(t *testing.T) {
	d := dial{acceptor: &Acceptor{}}
	s := &Session{dial: &d}
	s.ends[1].fd, s.ends[1].slot = -1, -1
	l := &loop{now: time.Second}
	for _, want := range []time.Duration{5, 10, 20, 40, 80, 100, 100} {
		d.again(l, s)
		if got := d.at - l.now; got != want*time.Millisecond {
			t.Errorf("paused for %v, want %v", got, want*time.Millisecond)
		}
	}
}
