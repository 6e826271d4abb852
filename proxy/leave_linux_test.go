package proxy_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
)

// A client that goes away while its server is dialled is let go, unless it has said
// something that the server may still want to hear.
func TestClientLeavesDuringDial(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		target := testnet.NewSilent(t)
		r := newRelay(t, w, loopback(t, "tcp4"), setup{
			targets: []proxy.Addr{{Network: "tcp", Address: target.Addr}}, connectTimeout: time.Hour,
		})
		expectLeft := func(how string) {
			t.Helper()
			if f := receive(t, r.failed, how); f.Reason != proxy.ClientLeft {
				t.Errorf("%s: %s, %v", how, f.Reason, f.Err)
			}
		}
		last := r.dial(t)
		send(t, last, "last words")
		closeWrite(t, last)

		c := r.dial(t)
		send(t, c, "hello") // what a reset takes with it
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
		expectLeft("reset")

		mute := r.dial(t)
		closeWrite(t, mute)
		expectLeft("a FIN without a word")
		expectReset(t, mute)

		if got := settled(func() int { return r.Stats().Open }, 1); got != 1 {
			t.Fatalf("%d connections are open, want that with the last words", got)
		}
		fd := target.Answer(t)
		defer syscall.Close(fd)
		b := make([]byte, 100)
		if n, err := syscall.Read(fd, b); err != nil || string(b[:n]) != "last words" {
			t.Errorf("the server was sent %q, %v", b[:max(0, n)], err)
		}
		// Nobody holds it against the server.
		if s := r.Upstreams()[0].Servers[0]; len(s.ConnectFailures) > 0 {
			t.Errorf("the server is said to have failed: %v", s.ConnectFailures)
		}
	})
}

func TestClientLeavesQueue(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		c := oneUpstream(proxy.Upstream{
			Servers: proxy.Targets(b.addr.String()), MaxConnections: 1, Queue: proxy.Queue{Timeout: proxy.Duration(time.Hour)},
		})
		r := startRelay(t, w, c, proxy.Hooks{})
		first := r.dial(t)
		server := b.next(t)
		second := r.dial(t)
		settled(func() int { return r.Upstreams()[0].Queued }, 1)
		_ = second.(*net.TCPConn).SetLinger(0)
		_ = second.Close()
		if f := receive(t, r.failed, "the failure"); f.Reason != proxy.ClientLeft {
			t.Errorf("failed with %s, %v", f.Reason, f.Err)
		}
		_, _ = first.Close(), server.Close()
		receive(t, r.ended, "the end of the first")
		third := r.dial(t) // the room is not the second's
		send(t, third, "x")
		expect(t, b.next(t), "x")
	})
}

// A lifetime begins when the client is accepted, and ends a dial too.
func TestLifetimeEndsDial(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		refuses := dead(t)
		r := newRelay(t, w, loopback(t, "tcp4"), setup{
			targets: []proxy.Addr{refuses, {Network: "tcp", Address: testnet.NewSilent(t).Addr}}, connectTimeout: time.Hour,
			limits: proxy.Limits{Lifetime: proxy.Timeout(300 * time.Millisecond)},
		})
		c := r.dial(t)
		expectReset(t, c)
		if f := receive(t, r.failed, "the failure"); f.Reason != proxy.LifetimeOver || f.After < 200*time.Millisecond {
			t.Errorf("failed with %s after %v, %v", f.Reason, f.After, f.Err)
		}
		servers := r.Upstreams()[0].Servers
		if n := servers[0].ConnectFailures[proxy.ConnectRefused]; n != 1 {
			t.Errorf("%d connects to the first server are counted as refused, want 1", n)
		}
		if len(servers[1].ConnectFailures) > 0 {
			t.Errorf("the second is said to have failed: %v", servers[1].ConnectFailures)
		}
	})
}
