package proxy_test

import (
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// socketBetween finds the descriptor of this process's socket with these addresses.
func socketBetween(t *testing.T, local, remote string) int {
	t.Helper()
	text := func(sa syscall.Sockaddr, err error) string {
		if in, ok := sa.(*syscall.SockaddrInet4); err == nil && ok {
			return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)).String()
		}
		return ""
	}
	for fd := range 4096 {
		if text(syscall.Getsockname(fd)) == local && text(syscall.Getpeername(fd)) == remote {
			return fd
		}
	}
	t.Fatalf("no socket from %s to %s", local, remote)
	return -1
}

func expectOptions(t *testing.T, fd int, want [5]int) {
	t.Helper()
	for i, name := range [...]int{syscall.TCP_KEEPIDLE, syscall.TCP_KEEPINTVL, syscall.TCP_KEEPCNT, 18 /* TCP_USER_TIMEOUT */, 25 /* TCP_NOTSENT_LOWAT */} {
		if got, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, name); err != nil || got != want[i] {
			t.Errorf("option %d is %d, %v; want %d", name, got, err, want[i])
		}
	}
	if on, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE); err != nil || on != 1 {
		t.Errorf("SO_KEEPALIVE is %d, %v", on, err)
	}
}

// The options of both connections are what the configuration says.
func TestTCPOptions(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		b := newBackend(t, loopback(t, "tcp4"))
		c := oneUpstream(proxy.Upstream{
			Servers: proxy.Targets(b.addr.String()),
			TCP:     proxy.TCPOptions{KeepaliveIdle: proxy.Duration(7 * time.Second), UserTimeout: proxy.Timeout(9 * time.Second)},
		})
		l := c.Listeners["relay"]
		l.TCP = proxy.TCPOptions{
			KeepaliveInterval: proxy.Duration(3 * time.Second), KeepaliveCount: 2, UserTimeout: proxy.Timeout(1500 * time.Millisecond), NotSentLowat: 65536,
		}
		c.Listeners["relay"] = l
		r := startRelay(t, w, c, proxy.Hooks{})
		client := r.dial(t)
		server := b.next(t)
		send(t, client, "x")
		expect(t, server, "x")
		expectOptions(t, socketBetween(t, r.addr.Address, client.LocalAddr().String()), [5]int{120, 3, 2, 1500, 65536})
		expectOptions(t, socketBetween(t, server.RemoteAddr().String(), server.LocalAddr().String()), [5]int{7, 15, 4, 9000, 0})
	})
}

// A client whose link has gone is given up user_timeout after what it was sent, and
// not a quarter of an hour later.
func TestUserTimeout(t *testing.T) {
	testnet.Need(t, "netns")
	testnet.Leaks(t)
	chain, err := testnet.NewChain()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	b := newBackend(t, loopback(t, "tcp4"))
	c := oneUpstream(proxy.Upstream{Servers: proxy.Targets(b.addr.String())})
	l := c.Listeners["relay"]
	l.TCP.UserTimeout = proxy.Timeout(500 * time.Millisecond)
	l.Engine = splice.EngineSplice
	c.Listeners["relay"] = l
	var ln net.Listener
	r := startRelay(t, func(own net.Listener) net.Listener {
		_ = own.Close()
		if ln, err = chain.B.Listen("tcp4", "0.0.0.0:0"); err != nil {
			t.Fatal(err)
		}
		return ln
	}, c, proxy.Hooks{})
	_, port, err := net.SplitHostPort(r.addr.Address)
	if err != nil {
		t.Fatal(err)
	}
	client, err := chain.A.Dial(t.Context(), "tcp4", net.JoinHostPort(testnet.AddrBA, port))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server := b.next(t)
	send(t, server, "hello")
	_ = client.SetDeadline(time.Now().Add(patience))
	expect(t, client, "hello")
	if err := chain.A.Down(testnet.LinkAB); err != nil {
		t.Fatal(err)
	}
	send(t, server, "is anybody there?")
	e := receive(t, r.ended, "the end")
	if e.Result.BToA.Reason != splice.ResetByDrain || !strings.Contains(e.Result.BToA.Err.Error(), "timed out") {
		t.Errorf("ended with %v, %v; want the client to have vanished", e.Result.BToA.Reason, e.Result.BToA.Err)
	}
	expectReset(t, server)
}
