package engine

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// startRedirected starts a session by the engine sockmap.
func startRedirected(t *testing.T, r *Reactor, limits Limits) owned {
	t.Helper()
	fds, peers := ends(t)
	return startWith(t, r, fds, peers, limits)
}

func startWith(t *testing.T, r *Reactor, fds [2]int, peers [2]*net.TCPConn, limits Limits) owned {
	t.Helper()
	s, err := r.Start(Spec{Kind: Sockmap, A: fds[0], B: fds[1], Own: true, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	return owned{s, t, fds, peers}
}

// carry sends some bytes from peer 0 to peer 1.
func (o owned) carry() {
	o.t.Helper()
	if _, err := io.WriteString(o.peers[0], "hello"); err != nil {
		o.t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(o.peers[1], b); err != nil || string(b) != "hello" {
		o.t.Fatalf("%q, %v", b, err)
	}
}

func (o owned) because(kind Kind, why Why) {
	o.t.Helper()
	if d := o.Stats().AToB; d.Engine != kind || d.Why != why {
		o.t.Errorf("engine %v because of %v, want %v because of %v", d.Engine, d.Why, kind, why)
	}
}

// emptyMaps returns a check that nothing is left in the maps.
func emptyMaps(t *testing.T, r *Reactor) func() {
	t.Helper()
	plane, err := r.sockmap.hold(r.SockmapPairs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.sockmap.release()
		r.sockmap.trim()
	})
	return func() {
		t.Helper()
		if members, sources, routes := plane.Sizes(); members+sources+routes != 0 {
			t.Errorf("%d members, %d sources and %d routes are left in the maps", members, sources, routes)
		}
	}
}

// onLoop makes a session that is about to join a loop of the test's own.
func onLoop(t *testing.T, l *loop) owned {
	t.Helper()
	fds, peers := ends(t)
	s := &Session{loop: l, own: true, redirect: redirectFor(Sockmap)}
	s.timer.owner = s
	for i := range s.ends {
		s.ends[i] = endpoint{session: s, fd: fds[i], slot: -1}
		if err := s.ends[i].prepare(); err != nil {
			t.Fatal(err)
		}
		s.dirs[i].init(&s.ends[i], &s.ends[1-i], 0, nil)
	}
	return owned{s, t, fds, peers}
}

// A session whose stop comes together with its sockets' first events gives them
// back: once it entered the maps then, and slept.
func TestRedirectStoppedBeforeItsFirstTurn(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	var r Reactor
	r.init()
	empty := emptyMaps(t, &r)
	l, err := newLoop(&r)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	o := onLoop(t, l)
	defer sys.Close(o.fds[0])
	defer sys.Close(o.fds[1])
	s := o.Session
	l.join(s)
	for i := range s.ends {
		s.ends[i].event(sys.EpollOut)
	}
	s.stopping = true
	s.run(l)
	if !s.over || !s.keeps() {
		t.Errorf("after its first turn: over %v, sockets kept %v", s.over, s.keeps())
	}
	empty()
}

// A socket that somebody else's verdict program has, or whose owner has put a
// filter on it, stays out of the maps, and the session is carried all the same.
func TestRedirectRefusesWhatOthersHave(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	for name, occupy := range map[string]func(t *testing.T, fd int, c *net.TCPConn){
		"sockmap": func(t *testing.T, _ int, c *net.TCPConn) {
			testnet.NewSockmap(t, ebpf.SockMap, "skb-pass").Put(1, c)
		},
		"filter": func(t *testing.T, fd int, _ *net.TCPConn) {
			all, err := ebpf.NewProgram(passAll())
			if err != nil {
				t.Fatal(err)
			}
			defer all.Close()
			if err := sys.AttachFilter(fd, all.FD()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var r Reactor
			empty := emptyMaps(t, &r)
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			fds, peers := ends(t)
			_ = sys.Close(fds[1])
			peers[1] = dialTo(t, ln.Addr().String())
			c, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fds[1] = descriptor(t, c.(*net.TCPConn))
			occupy(t, fds[1], c.(*net.TCPConn))
			o := startWith(t, &r, fds, peers, Limits{})
			o.carry()
			o.because(Copy, WhySockmapForeign)
			empty()
			o.Abort()
			o.await()
		})
	}
}

// Beyond the size of the maps sessions are carried by another engine, until
// there is room again.
func TestRedirectFullMaps(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	r := Reactor{SockmapPairs: 1}
	empty := emptyMaps(t, &r)
	first := startRedirected(t, &r, Limits{})
	first.carry()
	first.because(Sockmap, WhyRedirected)
	second := startRedirected(t, &r, Limits{})
	second.carry()
	second.because(Copy, WhySockmapFull)
	first.end()
	third := startRedirected(t, &r, Limits{})
	third.carry()
	third.because(Sockmap, WhyRedirected)
	third.end()
	second.end()
	empty()
}

// What is redirected does not wake the loop: epoll_wait goes on waiting.
func TestRedirectSleeps(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	var r Reactor
	r.init()
	empty := emptyMaps(t, &r)
	l, err := newLoop(&r)
	if err != nil {
		t.Fatal(err)
	}
	o := onLoop(t, l)
	l.post(command{what: join, s: o.Session})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.run()
	}()
	const exchanges = 1000
	back := o
	slices.Reverse(back.peers[:])
	for range exchanges {
		o.carry()
		back.carry()
	}
	d := o.Stats().AToB
	o.end()
	<-ended
	empty()
	t.Logf("%d exchanges, %+v, %d waits", exchanges, d, l.waits)
	if d.Redirected < d.Bytes/2 || l.waits > exchanges/2 {
		t.Errorf("%d of %d bytes redirected, and the loop was woken %d times for %d exchanges", d.Redirected, d.Bytes, l.waits, exchanges)
	}
}

// When a byte last moved is known after the session too: once only the moves in
// user space were.
func TestRedirectLastProgress(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	var r Reactor
	o := startRedirected(t, &r, Limits{})
	begin := o.Stats().Started
	for time.Since(begin) < time.Second/2 {
		o.carry()
	}
	for _, p := range o.peers {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	<-o.Done()
	res := o.Result()
	if after := res.Stats.LastProgress.Sub(begin); res.Stats.AToB.Redirected == 0 || after < time.Second/4 {
		t.Errorf("%d bytes redirected during half a second, the last after %v", res.Stats.AToB.Redirected, after)
	}
}
