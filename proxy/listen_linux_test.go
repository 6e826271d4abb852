package proxy_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy"
)

// staleSocket leaves the file of a socket that nobody listens on any more.
func staleSocket(t *testing.T, path string) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
}

func TestListenReplacesStaleFile(t *testing.T) {
	testnet.Leaks(t)
	path := filepath.Join(t.TempDir(), "s")
	staleSocket(t, path)
	ln, err := proxy.Listen(t.Context(), proxy.Addr{Network: "unix", Address: path}, proxy.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

// Whoever has bound the path anew keeps the file, whichever way the first one
// ends.
func TestCloseLeavesTheFileOfAnother(t *testing.T) {
	for name, begin := range map[string]func(t *testing.T, path string) (end func() error){
		"listener": func(t *testing.T, path string) func() error {
			ln, err := proxy.Listen(t.Context(), proxy.Addr{Network: "unix", Address: path}, proxy.SocketOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return ln.Close
		},
		"server": func(t *testing.T, path string) func() error {
			s := &proxy.Server{Config: proxy.Config{
				Listeners: map[string]proxy.Listener{"l": {Address: []string{"unix:" + path}, Upstream: "u"}},
				Upstreams: map[string]proxy.Upstream{"u": {Servers: proxy.Targets("127.0.0.1:1")}},
			}}
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			return s.Close
		},
	} {
		t.Run(name, func(t *testing.T) {
			testnet.Leaks(t)
			path := filepath.Join(t.TempDir(), "s")
			end := begin(t, path)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			other, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if err := end(); err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatalf("the file is gone: %v", err)
			}
			_ = c.Close()
		})
	}
}

func TestListenLeavesWhatIsInUse(t *testing.T) {
	testnet.Leaks(t)
	dir := t.TempDir()
	stream := filepath.Join(dir, "stream")
	ln, err := net.Listen("unix", stream)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	datagrams := filepath.Join(dir, "datagrams")
	pc, err := net.ListenPacket("unixgram", datagrams)
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		stream:                                syscall.EADDRINUSE,
		datagrams:                             syscall.EADDRINUSE,
		file:                                  fs.ErrExist,
		filepath.Join(dir, "no", "such", "x"): fs.ErrNotExist,
	} {
		l, err := proxy.Listen(t.Context(), proxy.Addr{Network: "unix", Address: path}, proxy.SocketOptions{})
		if err == nil {
			_ = l.Close()
		}
		if !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("listen on %s: %v, want %v", path, err, want)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
	if c, err := net.Dial("unix", stream); err != nil {
		t.Errorf("the socket in use was touched: %v", err)
	} else {
		_ = c.Close()
	}
}

// Of several that start on the same stale file at once one gets it, and none
// takes it away from another.
func TestListenRace(t *testing.T) {
	testnet.Leaks(t)
	for range 20 {
		path := filepath.Join(t.TempDir(), "s")
		staleSocket(t, path)
		var mu sync.Mutex
		var won []net.Listener
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				ln, err := proxy.Listen(t.Context(), proxy.Addr{Network: "unix", Address: path}, proxy.SocketOptions{})
				if err != nil {
					if !errors.Is(err, syscall.EADDRINUSE) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				won = append(won, ln)
				mu.Unlock()
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d listen on the same file", len(won))
		}
		if c, err := net.Dial("unix", path); err != nil {
			t.Fatal(err)
		} else {
			_ = c.Close()
		}
		_ = won[0].Close()
	}
}

func TestListenInUse(t *testing.T) {
	testnet.Leaks(t)
	ln, err := proxy.Listen(t.Context(), loopback(t, "tcp4"), proxy.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	again, err := proxy.Listen(t.Context(), boundAddr(ln), proxy.SocketOptions{})
	if err == nil {
		_ = again.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("listen on a port in use: %v", err)
	}
}

// What is set on the listener holds for each connection: keepalive is on, and
// the socket is one of plain TCP, whatever the client asks for.
func TestAcceptedSocket(t *testing.T) {
	testnet.Leaks(t)
	ln, err := proxy.Listen(t.Context(), loopback(t, "tcp4"), proxy.SocketOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var d net.Dialer
	d.SetMultipathTCP(true)
	client, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		for _, o := range []struct {
			name               string
			level, opt, expect int
		}{
			{"SO_KEEPALIVE", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 120},
			{"TCP_KEEPINTVL", syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15},
			{"TCP_KEEPCNT", syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 4},
			{"TCP_NODELAY", syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
		} {
			if v, err := syscall.GetsockoptInt(int(fd), o.level, o.opt); err != nil || v != o.expect {
				t.Errorf("%s is %d, %v; want %d", o.name, v, err, o.expect)
			}
		}
		if p, err := sys.SocketProtocol(int(fd)); err != nil || p != syscall.IPPROTO_TCP {
			t.Errorf("protocol %d, %v; want TCP", p, err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
