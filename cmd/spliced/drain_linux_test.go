package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// Who drains heeds signals to end, and no others: a reload or an upgrade comes too late, and cuts
// nobody.
func TestDrainHeedsTheEndAlone(t *testing.T) {
	testnet.Leaks(t)
	d := runDaemon(t, fmt.Sprintf("drain: {timeout: never}\nlisteners:\n  echo: {address: 127.0.0.1:0, upstream: echo}\nupstreams:\n  echo: {servers: %q}\n",
		testnet.Echo(t, "tcp", "127.0.0.1:0")))
	c, err := net.DialTimeout("tcp", d.addr(t, "echo"), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	echo1(t, c, "before")
	d.signal(syscall.SIGTERM)
	d.stderr.await(t, "msg=draining")
	for i, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2} {
		d.signal(s)
		if line := d.stderr.awaitNth(t, `msg="signal not heeded"`, i+1); !strings.Contains(line, s.String()) {
			t.Errorf("%v: %s", s, line)
		}
		echo1(t, c, "all the same")
	}
	d.signal(syscall.SIGTERM)
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d bytes, %v; want a reset", n, err)
	}
	if code := d.wait(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}
