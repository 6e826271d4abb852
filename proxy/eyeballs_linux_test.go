package proxy_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// A dual is a name with an address of each family, and what is found there.
type dual struct {
	dns       *nameServer
	name      string // and port
	six, four string // addresses and port
	upstream  proxy.Upstream
}

// newDual finds a port that is free for both.
func newDual(t *testing.T) *dual {
	t.Helper()
	d := &dual{dns: newNameServer(t)}
	for range 10 {
		six, err := net.Listen("tcp6", "[::1]:0")
		if err != nil {
			t.Skipf("needs ::1: %v", err)
		}
		port := six.Addr().(*net.TCPAddr).Port
		four, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		_ = six.Close()
		if err != nil {
			continue
		}
		_ = four.Close()
		d.dns.set(t, "dual.test.", 3600, "127.0.0.1", "::1")
		d.name, d.six, d.four = fmt.Sprintf("dual.test:%d", port), fmt.Sprintf("[::1]:%d", port), fmt.Sprintf("127.0.0.1:%d", port)
		d.upstream = proxy.Upstream{Servers: proxy.Targets(d.name), Resolve: proxy.Resolve{Servers: []string{d.dns.addr}}}
		return d
	}
	t.Fatal("no port is free for both families")
	return nil
}

// blackhole has nobody answer at an address, until it is closed: the queue of who
// listens there is full.
func blackhole(t *testing.T, addr string) (fd int) {
	t.Helper()
	at := netip.MustParseAddrPort(addr)
	family, sa := syscall.AF_INET, syscall.Sockaddr(&syscall.SockaddrInet4{Port: int(at.Port())})
	if at.Addr().Is4() {
		sa.(*syscall.SockaddrInet4).Addr = at.Addr().As4()
	} else {
		family, sa = syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", addr) // the one that fits
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return fd
}

// awaitSYN waits until somebody dials that address, which does not answer.
func awaitSYN(t *testing.T, addr string) {
	t.Helper()
	at := netip.MustParseAddrPort(addr)
	want := fmt.Sprintf(" %08X:%04X 02 ", binary.NativeEndian.Uint32(at.Addr().AsSlice()), at.Port())
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile("/proc/thread-self/net/tcp")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("nobody dials %s", addr)
		}
	}
}

// servers are what is known of the two addresses.
func (d *dual) servers(t *testing.T, r *relay) (six, four proxy.ServerStatus) {
	t.Helper()
	for _, s := range r.Upstreams()[0].Servers {
		switch s.Name {
		case d.name + "=" + d.six:
			six = s
		case d.name + "=" + d.four:
			four = s
		}
	}
	if six.Name == "" || four.Name == "" {
		t.Fatalf("servers %s", r.names())
	}
	return six, four
}

// settled wants the counts of who is connected to to be those of the end.
func (d *dual) settled(t *testing.T, r *relay) (six, four proxy.ServerStatus) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if six, four = d.servers(t, r); six.Active == 0 && four.Active == 0 {
			return six, four
		}
		if time.Now().After(end) {
			t.Fatalf("%d and %d connections are left", six.Active, four.Active)
		}
	}
}

// Both answer: the server is one, by IPv6, and stands for one among others.
func TestDualPrefersIPv6(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		d := newDual(t)
		newNamed(t, d.six, "6")
		newNamed(t, d.four, "4")
		d.upstream.Servers = append(d.upstream.Servers, proxy.Targets(newNamed(t, "127.0.0.1:0", "o").addr)...)
		r := startRelay(t, w, oneUpstream(d.upstream), proxy.Hooks{})
		if got := r.tally(t, 20); !maps.Equal(got, map[string]int{"6": 10, "o": 10}) {
			t.Errorf("got %v", got)
		}
		if six, four := d.settled(t, r); six.Connected != 10 || six.ConnectFailed+four.ConnectFailed+four.Connected != 0 {
			t.Errorf("%+v\n%+v", six, four)
		}
		// The other family is there when this one is not wanted.
		if err := r.SetDraining("u", d.name+"="+d.six, true); err != nil {
			t.Fatal(err)
		}
		if got := r.tally(t, 20); !maps.Equal(got, map[string]int{"4": 10, "o": 10}) {
			t.Errorf("with IPv6 drained got %v", got)
		}
	})
}

// IPv6 refuses: IPv4 is tried at once, and that is IPv6's failure.
func TestDualRefused(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		d := newDual(t)
		newNamed(t, d.four, "4")
		d.upstream.Attempts = 1 // servers, not addresses
		d.upstream.Ejection.Failures = 3
		r := startRelay(t, w, oneUpstream(d.upstream), proxy.Hooks{})
		if got := r.tally(t, 6); got["4"] != 6 {
			t.Errorf("got %v", got)
		}
		six, four := d.settled(t, r)
		if six.ConnectFailures[proxy.ConnectRefused] != 3 || !six.Ejected || four.Connected != 6 || four.ConnectFailed != 0 {
			t.Errorf("%+v\n%+v", six, four)
		}
	})
}

// Nobody answers to IPv6: IPv4 is tried beside it. After some of that it is left out.
func TestDualBlackholed(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		d := newDual(t)
		blackhole(t, d.six)
		newNamed(t, d.four, "4")
		d.upstream.ConnectTimeout = proxy.Duration(patience)
		d.upstream.Ejection.Failures = 2
		r := startRelay(t, w, oneUpstream(d.upstream), proxy.Hooks{})
		begun := time.Now()
		if got := r.tally(t, 4); got["4"] != 4 {
			t.Errorf("got %v", got)
		}
		if took := time.Since(begun); took < 2*splice.RaceDelay || took > patience {
			t.Errorf("four clients took %v", took)
		}
		six, four := d.settled(t, r)
		if six.ConnectFailures[proxy.ConnectRaced] != 2 || six.ConnectFailed != 2 || !six.Ejected || four.Connected != 4 || four.ConnectFailed != 0 {
			t.Errorf("%+v\n%+v", six, four)
		}
	})
}

// A connect_timeout that is shorter than the delay leaves time for both.
func TestDualInAHurry(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		d := newDual(t)
		blackhole(t, d.six)
		newNamed(t, d.four, "4")
		d.upstream.ConnectTimeout = proxy.Duration(splice.RaceDelay - time.Millisecond)
		d.upstream.Attempts, d.upstream.Ejection.Off = 1, true
		r := startRelay(t, w, oneUpstream(d.upstream), proxy.Hooks{})
		for try := 1; ; try++ { // a machine that is busy may take the rest of the time
			c := r.dial(t)
			n, err := c.Read(make([]byte, 1))
			_ = c.Close()
			if n == 1 {
				break
			}
			if try == 50 {
				t.Fatal(err)
			}
		}
		if six, four := d.settled(t, r); six.ConnectFailures[proxy.ConnectRaced] != 1 || four.Connected != 1 {
			t.Errorf("%+v\n%+v", six, four)
		}
	})
}

// IPv6 that answers late, and first all the same, is taken.
func TestDualLate(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		d := newDual(t)
		late := blackhole(t, d.six)
		blackhole(t, d.four)
		d.upstream.ConnectTimeout = proxy.Duration(patience)
		r := startRelay(t, w, oneUpstream(d.upstream), proxy.Hooks{})
		c := r.dial(t)
		awaitSYN(t, d.four)
		var fds [2]int // the one that was in the way, and this client's, whose SYN is sent again
		for i := range fds {
			var err error
			if fds[i], _, err = syscall.Accept4(late, syscall.SOCK_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			_, _ = syscall.Write(fds[i], []byte("6"))
		}
		expect(t, c, "6")
		_ = c.Close()
		for _, fd := range fds {
			_ = syscall.Close(fd)
		}
		receive(t, r.ended, "the end")
		six, four := d.settled(t, r)
		if six.Connected != 1 || six.ConnectFailed != 0 || four.ConnectFailures[proxy.ConnectRaced] != 1 || four.ConnectFailed != 1 || four.Connected != 0 {
			t.Errorf("%+v\n%+v", six, four)
		}
	})
}

// Both addresses together have the time of one server; then comes the next.
func TestDualTimeout(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		d := newDual(t)
		blackhole(t, d.six)
		blackhole(t, d.four)
		d.upstream.ConnectTimeout = proxy.Duration(time.Second)
		other := newNamed(t, "127.0.0.1:0", "o")
		d.upstream.Servers = append(d.upstream.Servers, proxy.Targets(other.addr)...)
		d.upstream.Balance = proxy.First
		r := startRelay(t, w, oneUpstream(d.upstream), proxy.Hooks{})
		if name, c := r.ask(t); name != "o" {
			t.Errorf("got %s", name)
		} else {
			_ = c.Close()
		}
		six, four := d.settled(t, r)
		if six.ConnectFailures[proxy.ConnectTimeout] != 1 || four.ConnectFailures[proxy.ConnectTimeout] != 1 || six.ConnectFailed+four.ConnectFailed != 2 {
			t.Errorf("%+v\n%+v", six, four)
		}
	})
}

// When all have failed the client is told so, and each is counted for what it did;
// a client that leaves meanwhile is nobody's failure.
func TestDualFails(t *testing.T) {
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		d := newDual(t)
		blackhole(t, d.six)
		d.upstream.ConnectTimeout = proxy.Duration(500 * time.Millisecond)
		d.upstream.Ejection.Off = true
		r := startRelay(t, w, oneUpstream(d.upstream), proxy.Hooks{})
		r.dialRefused(t, "hello")
		f := receive(t, r.failed, "the failure")
		if f.Reason != proxy.ConnectRefused { // of both what comes first in the table
			t.Errorf("%s, %v", f.Reason, f.Err)
		}
		six, four := d.settled(t, r)
		if six.ConnectFailures[proxy.ConnectTimeout] != 1 || four.ConnectFailures[proxy.ConnectRefused] != 1 || six.ConnectFailed+four.ConnectFailed != 2 {
			t.Errorf("%+v\n%+v", six, four)
		}
	})
	bothWays(t, func(t *testing.T, w way) {
		testnet.Leaks(t)
		d := newDual(t)
		blackhole(t, d.six)
		blackhole(t, d.four)
		d.upstream.ConnectTimeout = proxy.Duration(patience)
		r := startRelay(t, w, oneUpstream(d.upstream), proxy.Hooks{})
		c := r.dial(t)
		awaitSYN(t, d.four)
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
		if f := receive(t, r.failed, "the failure"); f.Reason != proxy.ClientLeft {
			t.Errorf("%s, %v", f.Reason, f.Err)
		}
		if six, four := d.settled(t, r); six.ConnectFailed+four.ConnectFailed != 0 {
			t.Errorf("%+v\n%+v", six, four)
		}
	})
}
