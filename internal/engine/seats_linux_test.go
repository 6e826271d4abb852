package engine

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A loop tells who holds a connection what its client does, until it is let go.
func TestLoopListensToTheHeld(t *testing.T) {
	testnet.Leaks(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	type news struct {
		of   int
		gone bool
	}
	told := make(chan news, 100)
	held := make(chan *Held, 2)
	r := &Reactor{epoch: time.Now(), loops: make([]*loop, 1)} // its events are in order
	clients := 0
	a, addr := acceptEach(t, r, ln, nil, func(*Session, netip.AddrPort) Way {
		n := clients
		clients++
		return Way{Hold: func(h Held) {
			if err := h.Listen(func(gone bool) { told <- news{n, gone} }); err != nil {
				t.Error(err)
			}
			held <- &h
		}}
	})
	expect := func(want news) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Fatalf("told of %+v, want %+v", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("not told of %+v", want)
		}
	}
	come := func() (*net.TCPConn, *Held) {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c.(*net.TCPConn), <-held
	}
	say := func(c *net.TCPConn) {
		t.Helper()
		if _, err := io.WriteString(c, "a"); err != nil {
			t.Fatal(err)
		}
	}
	first, firstHeld := come()
	second, secondHeld := come()
	say(first)
	expect(news{0, false})
	say(second)
	expect(news{1, false})
	firstHeld.Deafen()
	say(first)
	a.Close()
	a.Wait() // those who are held keep the loop
	if err := second.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expect(news{1, true})
	firstHeld.Reset()
	secondHeld.Reset()
	for _, c := range []*net.TCPConn{first, second} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v, want a reset", err)
		}
	}
	for len(told) > 0 {
		if n := <-told; n.of == 0 { // a FIN may make two events
			t.Errorf("told of %+v, which nobody listens to", n)
		}
	}
}

// An event of a connection that was let go is not for the one that has its seat, and a
// loop does not end before the last has left.
func TestSeatIsTakenInTurns(t *testing.T) {
	testnet.Leaks(t)
	ep, err := sys.EpollCreate()
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close(ep)
	l := &loop{reactor: new(Reactor), ep: ep}
	told := 0
	enter := func(fd int, said func(bool)) *Held {
		t.Helper()
		h := &Held{FD: fd, loop: l}
		if err := h.Listen(said); err != nil {
			t.Fatal(err)
		}
		return h
	}
	one, two := unixPair(t), unixPair(t)
	first := enter(one[0], func(bool) { t.Error("the first one was told") })
	if _, err := sys.Send(one[1], []byte("a")); err != nil {
		t.Fatal(err)
	}
	events := make([]sys.EpollEvent, 2)
	if n, err := sys.EpollWait(ep, events, 0); n != 1 || err != nil {
		t.Fatalf("%d events, %v", n, err)
	}
	if l.idle() {
		t.Fatal("the loop ends although it listens to one")
	}
	first.Deafen()
	second := enter(two[0], func(bool) { told++ })
	if second.seat != first.seat {
		t.Fatalf("seats %d and %d: the test tests nothing", first.seat, second.seat)
	}
	l.event(&events[0])
	if told != 0 {
		t.Error("the second one was told of what the first has said")
	}
	if _, err := sys.Send(two[1], []byte("a")); err != nil {
		t.Fatal(err)
	}
	if n, err := sys.EpollWait(ep, events, 0); n != 1 || err != nil {
		t.Fatalf("%d events, %v", n, err)
	}
	l.event(&events[0])
	if told != 1 {
		t.Errorf("told %d times, want 1", told)
	}
	second.Deafen()
	if n, err := sys.EpollWait(ep, events, 0); n != 0 || err != nil {
		t.Errorf("%d events of nobody, %v", n, err)
	}
	if !l.idle() {
		t.Error("the loop does not end although it listens to nobody")
	}
}

// What a loop posts to itself wakes nobody, and is done before it waits.
func TestLoopDoesWhatItPosts(t *testing.T) {
	testnet.Leaks(t)
	r := new(Reactor)
	l, err := newLoop(r)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if !l.fallAsleep() {
		t.Fatal("a loop without commands does not wait")
	}
	a := new(Acceptor)
	events := make([]sys.EpollEvent, 2)
	woken := func() int {
		t.Helper()
		n, err := sys.EpollWait(l.ep, events, 0)
		if err != nil {
			t.Fatal(err)
		}
		sys.EventfdDrain(l.wake)
		return n
	}
	l.post(command{what: resume, a: a})
	if woken() != 1 {
		t.Error("a command does not wake a loop that waits")
	}
	l.post(command{what: resume, a: a})
	if woken() != 0 {
		t.Error("a second command wakes it again")
	}
	if l.fallAsleep() {
		t.Error("a loop with commands waits")
	}
	l.obey()
	l.post(command{what: resume, a: a}) // by the loop itself, which is awake
	if woken() != 0 {
		t.Error("a loop wakes itself")
	}
	l.obey()
	if !l.fallAsleep() {
		t.Error("a loop that has done what was posted does not wait")
	}
}

func unixPair(t *testing.T) [2]int {
	t.Helper()
	p, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sys.Close(p[0]); _ = sys.Close(p[1]) })
	return p
}
