package splice_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// A client of a link-local address is known with its zone, the interface's name
// in the listener's network namespace: without it nobody could tell two links
// apart.
func TestForwardKnowsZone(t *testing.T) {
	testnet.Need(t, "netns")
	c, err := testnet.NewChain()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.A.AddAddr(testnet.LinkAB, "fe80::a/64"); err != nil {
		t.Fatal(err)
	}
	if err := c.B.AddAddr(testnet.LinkBA, "fe80::b/64"); err != nil {
		t.Fatal(err)
	}
	ln, err := c.B.Listen("tcp6", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(ln.Addr().String()).Port()
	clients := make(chan netip.AddrPort, 1)
	f, err := splice.Forward(ln, splice.Forwarding{
		Accepted: func(_ *splice.Session, client netip.AddrPort) splice.Way {
			clients <- client
			return splice.Way{}
		},
		Held: func(err error) { t.Errorf("held: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Wait()
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	to := netip.AddrPortFrom(netip.MustParseAddr("fe80::b%"+testnet.LinkAB), port)
	if conn, err := c.A.Dial(ctx, "tcp6", to.String()); err == nil {
		defer conn.Close()
	} else if !errors.Is(err, syscall.ECONNRESET) { // which may come first
		t.Fatal(err)
	}
	want := netip.MustParseAddr("fe80::a%" + testnet.LinkBA)
	select {
	case got := <-clients:
		if got.Addr() != want {
			t.Errorf("client %v, want %v", got.Addr(), want)
		}
	case <-ctx.Done():
		t.Error("nobody was accepted")
	}
}

// The zero Way refuses, and without a Handler nobody is told.
func TestForwardNowhere(t *testing.T) {
	plan, err := splice.NewPlan(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for name, way := range map[string]splice.Way{"zero": {}, "no target": {Plan: plan}} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			f, err := splice.Forward(ln, splice.Forwarding{
				Accepted: func(*splice.Session, netip.AddrPort) splice.Way { return way },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Wait()
			defer f.Close()
			conn, err := net.Dial("tcp", ln.Addr().String())
			if errors.Is(err, syscall.ECONNRESET) {
				return // before connect(2) had returned
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %d bytes, %v; want %v", n, err, syscall.ECONNRESET)
			}
		})
	}
}

// Of two that wait for one listening socket the kernel wakes one. Who pauses
// must leave no connection to nobody: the other takes each, and after Resume it
// does again.
func TestForwardPause(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	const clients = 50
	forward := func(ln net.Listener) (*splice.Forwarder, chan struct{}) {
		accepted := make(chan struct{}, clients)
		f, err := splice.Forward(ln, splice.Forwarding{
			Accepted: func(*splice.Session, netip.AddrPort) splice.Way {
				accepted <- struct{}{}
				return splice.Way{}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(f.Wait)
		t.Cleanup(f.Close)
		return f, accepted
	}
	dial := func() {
		for range clients {
			if conn, err := net.Dial("tcp", addr); err == nil {
				_ = conn.Close()
			}
		}
	}
	expect := func(who string, accepted chan struct{}) {
		t.Helper()
		for i := range clients {
			select {
			case <-accepted:
			case <-time.After(30 * time.Second):
				t.Fatalf("%s: %d of %d were accepted", who, i, clients)
			}
		}
	}
	first, byFirst := forward(ln)
	dial()
	expect("alone", byFirst)
	first.Pause()
	dial()
	file, err := first.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	again, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	second, bySecond := forward(again)
	expect("those that wait", bySecond)
	dial()
	expect("beside one that pauses", bySecond)
	if n := len(byFirst); n > 0 {
		t.Errorf("%d accepted by who pauses", n)
	}
	second.Pause()
	first.Resume()
	dial()
	expect("after it goes on", byFirst)
	if n := len(bySecond); n > 0 {
		t.Errorf("%d accepted by the other", n)
	}
}

// outcomes tells of one connection.
type outcomes struct {
	connected chan int
	failed    chan error
}

func (o outcomes) Note(splice.Flow) string                           { return "" }
func (o outcomes) Sockets(bool)                                      {}
func (o outcomes) Connected(target int, _ netip.AddrPort, _ []error) { o.connected <- target }
func (o outcomes) Failed(err error, _ []error)                       { o.failed <- err }
func (o outcomes) Ended(splice.Result)                               {}

// A target that may not be tried is passed over, whether it is a server or one more
// address of one; the first is not asked about.
func TestForwardTrying(t *testing.T) {
	testnet.Leaks(t)
	good, err := splice.NewTarget(netip.MustParseAddrPort(testnet.Echo(t, "tcp", "127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	refuses, err := splice.NewTarget(netip.MustParseAddrPort("127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	beside := func(t splice.Target) splice.Target {
		t.Beside = true
		return t
	}
	plan, err := splice.NewPlan(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		targets []splice.Target
		may     []bool // but the first
		want    int    // -1: none
		asked   int
	}{
		"the first":                    {[]splice.Target{good, good}, []bool{false}, 0, 0},
		"the next":                     {[]splice.Target{refuses, good}, []bool{true}, 1, 1},
		"the one after it":             {[]splice.Target{refuses, good, good}, []bool{false, true}, 2, 2},
		"none":                         {[]splice.Target{refuses, good, good}, []bool{false, false}, -1, 2},
		"not its other address":        {[]splice.Target{refuses, beside(good), good}, []bool{false, true}, 2, 2},
		"the other address of another": {[]splice.Target{refuses, good, beside(good)}, []bool{false, true}, 2, 2},
		"of one that refuses":          {[]splice.Target{refuses, beside(refuses), refuses, beside(good)}, []bool{true, false, true}, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			o := outcomes{make(chan int, 1), make(chan error, 1)}
			var asked []int
			f, err := splice.Forward(ln, splice.Forwarding{
				Accepted: func(*splice.Session, netip.AddrPort) splice.Way {
					return splice.Way{Plan: plan, Targets: tc.targets, Handler: o, Trying: func(target int) bool {
						asked = append(asked, target)
						return tc.may[target-1]
					}}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Wait()
			defer f.Close()
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err == nil {
				defer conn.Close()
			} else if !errors.Is(err, syscall.ECONNRESET) { // which may come first
				t.Fatal(err)
			}
			got := -1
			select {
			case got = <-o.connected:
			case err := <-o.failed:
				if !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("failed with %v, want the reason of the one that was tried", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("nothing has become of the connection")
			}
			if got != tc.want || len(asked) != tc.asked {
				t.Errorf("target %d, asked about %v; want %d, and %d asked about", got, asked, tc.want, tc.asked)
			}
		})
	}
}
