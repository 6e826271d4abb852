package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// Most local ports are those of spliced flows, of which the kernel knows nothing. Neither the
// health checks of their server get one, nor connections that the daemon dials one by one: they
// would have no answer.
func TestRunKeepsOffFlows(t *testing.T) {
	testnet.Need(t, "root", "netns", "bpf")
	testnet.Leaks(t)
	const stay, more, checks = 32, 8, 16
	ns, err := testnet.New("ports")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	ln, err := ns.Listen("tcp4", "127.0.0.1:9001")
	if err != nil {
		t.Fatal(err)
	}
	var checked atomic.Int64
	serveWithProxyHeader(t, ln, &checked)
	// 32 flows, and 32 ports for those that come.
	if err := ns.Sysctl("net.ipv4.ip_local_port_range", "40000 40063"); err != nil {
		t.Fatal(err)
	}
	d := &daemonProcess{config: t.TempDir() + "/c.yaml"}
	d.write(t, "log: {format: json}\nlisteners:\n  web: {address: \"127.0.0.1:9000\", engine: wire, upstream: web}\n"+
		"upstreams:\n  web: {servers: [\"127.0.0.1:9001\"], send_proxy: v1, health: {interval: 20ms, timeout: 20s, fall: 1}}\n")
	d.process = startIn(t, command(t, "run", "-c", d.config), ns.Start)
	d.addr(t, "web")
	dial := func() net.Conn {
		t.Helper()
		c, err := ns.Dial(t.Context(), "tcp4", "127.0.0.1:9000")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		return c
	}
	var conns []net.Conn
	for range stay {
		c := dial()
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	eventually(t, func() error {
		for _, c := range conns {
			_ = c.SetDeadline(time.Now().Add(patience))
			echo1(t, c, "12345678")
		}
		// Towards the server no socket is left but those of checks.
		if n := towards(t, ns, 9001); n > 2 {
			return fmt.Errorf("%d sockets", n)
		}
		return nil
	})
	for range more {
		c := dial()
		echo1(t, c, "answered")
		c.Close()
	}
	from := checked.Load()
	eventually(t, func() error {
		time.Sleep(time.Millisecond)
		if n := checked.Load() - from; n < checks {
			return fmt.Errorf("%d checks", n)
		}
		return nil
	})
	for _, c := range conns {
		_ = c.SetDeadline(time.Now().Add(patience))
		echo1(t, c, "alive")
		c.Close()
	}
	d.stop(t)
	for line := range strings.Lines(d.stderr.all()) {
		if strings.Contains(line, `"msg":"server down"`) {
			t.Error(line)
		}
	}
}

// towards counts the connections of a namespace to a port of its own, as its client.
func towards(t *testing.T, ns *testnet.Namespace, port int) (n int) {
	t.Helper()
	list, err := ns.ReadProcNet("tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) > 3 && f[3] == "01" && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", port)) {
			n++
		}
	}
	return n
}

// serveWithProxyHeader echoes what comes behind a PROXY header. Without one it counts a check.
func serveWithProxyHeader(t *testing.T, ln net.Listener, checked *atomic.Int64) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				in := bufio.NewReader(c)
				if header, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(header, "PROXY TCP4 ") {
					checked.Add(1)
					return
				}
				_, _ = io.Copy(c, in)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
}
