package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// HAProxy in front with send-proxy-v2 and HAProxy behind with accept-proxy: who
// the client is crosses all three, and both ends' bytes.
func TestHAProxyAround(t *testing.T) {
	testnet.Need(t, "peers")
	testnet.Leaks(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20
	sent := make([]byte, size)
	fillPattern(sent, 0)
	// The server is told by HAProxy who the client is, and sends that back
	// before what it is sent.
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(2 * patience))
				r := bufio.NewReader(c)
				if _, err := r.Peek(1); err != nil {
					return // a health check
				}
				_, _ = io.Copy(c, r)
			}()
		}
	}()
	defer func() { _ = ln.Close(); <-served }()

	front, behind := vacantAddr(t), vacantAddr(t)
	haproxy := func(name, text string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		text = "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 30s\n  timeout client 60s\n  timeout server 60s\n" + text
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		startForeign(t, nil, "haproxy", "-db", "-f", path)
	}
	haproxy("behind", fmt.Sprintf("listen l\n  bind %s accept-proxy\n  server s %s send-proxy\n", behind, ln.Addr()))
	awaitListener(t, behind)
	d := runDaemon(t, fmt.Sprintf(`
log: {format: json}
listeners:
  middle: {address: 127.0.0.1:0, proxy_from: 127.0.0.0/8, upstream: behind}
upstreams:
  behind: {servers: %q, send_proxy: v2}
`, behind))
	haproxy("front", fmt.Sprintf("listen l\n  bind %s\n  server s %s send-proxy-v2\n", front, d.addr(t, "middle")))
	awaitListener(t, front)

	const clients = 4
	own := make(map[string]bool)
	for range clients {
		c, err := net.DialTimeout("tcp", front, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		own[c.LocalAddr().String()] = true
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		go func() {
			_, _ = c.Write(sent)
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		header, rest, _ := bytes.Cut(b, []byte("\r\n"))
		host, port := hostPort(t, c.LocalAddr().String())
		frontHost, frontPort := hostPort(t, front)
		if want := fmt.Sprintf("PROXY TCP4 %s %s %s %s", host, frontHost, port, frontPort); string(header) != want {
			t.Errorf("the server is told %q, want %q", header[:min(len(header), 200)], want)
		}
		if !bytes.Equal(rest, sent) {
			t.Errorf("%d bytes come back, not the %d that were sent", len(rest), len(sent))
		}
	}
	d.stderr.awaitNth(t, `"msg":"connection ended"`, clients)
	d.stop(t)
	seen := 0
	for _, end := range d.ends(t) {
		if addr, _ := end["client"].(string); own[addr] {
			seen++
		}
	}
	if seen != clients {
		t.Errorf("%d of %d clients are in the log by their own addresses: %v", seen, clients, d.ends(t))
	}
	d.expectEnds(t, clients, 2*size, "eof")
}
