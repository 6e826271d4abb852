package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// A recipe is a section of docs/transparent.md: what is run as written.
type recipe struct{ yaml, nft, sh string }

func readRecipe(t *testing.T, section string) (r recipe) {
	t.Helper()
	b, err := os.ReadFile("../../docs/transparent.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n## "+section+"\n")
	if !ok {
		t.Fatalf("docs/transparent.md has no section %s", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	for _, m := range regexp.MustCompile("(?s)```(yaml|nft|sh)\n(.*?)```").FindAllStringSubmatch(text, -1) {
		*map[string]*string{"yaml": &r.yaml, "nft": &r.nft, "sh": &r.sh}[m[1]] += m[2]
	}
	if r.yaml == "" || r.nft == "" {
		t.Fatalf("section %s has %+v", section, r)
	}
	return r
}

// cook does in a namespace what the recipe says, but for the proxy.
func (r *recipe) cook(t *testing.T, ns *testnet.Namespace) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := ns.Run(ctx, r.nft, "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	if err := ns.Run(ctx, r.sh, "sh", "-eu"); err != nil {
		t.Fatal(err)
	}
}

// runDaemonIn is runUpgradable in a namespace.
func runDaemonIn(t *testing.T, ns *testnet.Namespace, text string) *daemonProcess {
	t.Helper()
	d := &daemonProcess{config: filepath.Join(t.TempDir(), "c.yaml")}
	d.write(t, text)
	cmd := command(t, "run", "-c", d.config)
	if err := ns.Do(func() error { d.process = start(t, cmd); return nil }); err != nil {
		t.Fatal(err)
	}
	d.stderr.await(t, `started`)
	return d
}

// mirror is a server that says at which of its addresses it was dialled and by whom,
// and then echoes. Its listeners are in a namespace.
func mirror(t *testing.T, ns *testnet.Namespace, addresses ...string) {
	t.Helper()
	var serving, talking sync.WaitGroup
	t.Cleanup(func() {
		serving.Wait()
		talking.Wait()
	})
	for _, address := range addresses {
		ln, err := ns.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		serving.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				talking.Go(func() {
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(2 * patience))
					from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
					fmt.Fprintf(c, "%s from %s\n", c.LocalAddr(), from)
					_, _ = io.Copy(c, c)
				})
			}
		})
		t.Cleanup(func() { _ = ln.Close() }) // before the one above
	}
}

// A caller is a client that has been told by a mirror whom it has reached.
type caller struct {
	net.Conn
	told string
}

func call(t *testing.T, ns *testnet.Namespace, address string) *caller {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := ns.Dial(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	// By the byte: what is behind the line is an echo.
	var line []byte
	for b := make([]byte, 1); len(line) == 0 || line[len(line)-1] != '\n'; line = append(line, b[0]) {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("%s: %q, %v", address, line, err)
		}
	}
	return &caller{c, strings.TrimSuffix(string(line), "\n")}
}

// refusedBy wants a connection to be reset without a byte, if it comes about.
func refusedBy(t *testing.T, ns *testnet.Namespace, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := ns.Dial(ctx, "tcp", address)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if b, err := bufio.NewReader(c).ReadByte(); err == nil || err == io.EOF {
		t.Errorf("%s: %q, %v; want a reset", address, b, err)
	}
}

var families = []struct{ name, client, router, away, server string }{
	{"IPv4", testnet.AddrA, testnet.AddrBA, testnet.AddrBC, testnet.AddrC},
	{"IPv6", testnet.Addr6A, testnet.Addr6BA, testnet.Addr6BC, testnet.Addr6C},
}

// Clients dial servers behind the proxy, which reaches each where it was dialled, as
// the document says; and whoever dials the proxy is refused.
func TestTransparent(t *testing.T) {
	testnet.Need(t, "root", "netns", "peers")
	for _, tt := range []struct {
		section string
		seen    bool // servers see the client
	}{{"TPROXY", true}, {"Redirect", false}} {
		t.Run(tt.section, func(t *testing.T) {
			testnet.Leaks(t)
			chain := newChain(t)
			if err := chain.B.Sysctl("net.ipv4.conf.all.rp_filter", "1"); err != nil { // as strict as can be
				t.Fatal(err)
			}
			r := readRecipe(t, tt.section)
			r.cook(t, chain.B)
			d := runDaemonIn(t, chain.B, "log: {format: json}\n"+r.yaml)
			ended := 0
			for _, f := range families {
				at := func(port string) string { return net.JoinHostPort(f.server, port) }
				mirror(t, chain.C, at("80"), at("443"), at("81"))
				from := f.away
				if tt.seen {
					from = f.client
				}
				for _, port := range []string{"80", "443"} {
					c := call(t, chain.A, at(port))
					if want := at(port) + " from " + from; c.told != want {
						t.Errorf("the server says %q, want %q", c.told, want)
					}
					echo1(t, c, strings.Repeat("0123456789", 20_000))
					_ = c.Close()
					ended++
					line := parse(t, d.stderr.awaitNth(t, `"msg":"connection ended"`, ended))
					if line["server"] != "original-destination" || line["target"] != at(port) || !strings.HasPrefix(line["client"].(string), hostPrefix(f.client)) {
						t.Errorf("the log says %v", line)
					}
				}
				// Another port is forwarded, past the proxy.
				if c := call(t, chain.A, at("81")); c.told != at("81")+" from "+f.client {
					t.Errorf("past the proxy the server says %q", c.told)
				}
				refusedBy(t, chain.A, net.JoinHostPort(f.router, "8443"))
			}
			for n := range families {
				line := parse(t, d.stderr.awaitNth(t, `"msg":"no target reached"`, n+1))
				if line["reason"] != "no-destination" || !strings.Contains(line["error"].(string), "is the listener itself") {
					t.Errorf("the log says %v", line)
				}
			}
			d.stop(t)
		})
	}
}

// hostPrefix is how host:port of that host begins.
func hostPrefix(host string) string { return strings.TrimSuffix(net.JoinHostPort(host, ""), "") }

func newChain(t *testing.T) *testnet.Chain {
	t.Helper()
	chain, err := testnet.NewChain()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := chain.Close(); err != nil {
			t.Error(err)
		}
	})
	return chain
}

// The engines that can carry connections under others' addresses do.
func TestTransparentEngines(t *testing.T) {
	testnet.Need(t, "root", "netns", "bpf", "peers")
	testnet.Leaks(t)
	chain := newChain(t)
	r := readRecipe(t, "TPROXY")
	r.cook(t, chain.B)
	f := families[0]
	mirror(t, chain.C, f.server+":80")
	for _, engine := range []string{"copy", "splice", "sockmap", "auto"} {
		t.Run(engine, func(t *testing.T) {
			d := runDaemonIn(t, chain.B, "log: {format: json}\n"+strings.Replace(r.yaml, "    upstream: there\n", "    upstream: there\n    engine: "+engine+"\n", 1))
			c := call(t, chain.A, f.server+":80")
			for range 4 {
				echo1(t, c, strings.Repeat("0123456789abcdef", 16<<10))
			}
			_ = c.Close()
			line := parse(t, d.stderr.await(t, `"msg":"connection ended"`))
			// Splice copies what comes in small pieces, and how large they are is the machine's affair.
			copied := engine == "splice" && line["engine_reason"] == "small-messages"
			if engine != "auto" && line["engine"] != engine && !copied {
				t.Errorf("carried by %v", line)
			}
			d.stop(t)
		})
	}
}

// The packets of a connection that is redirected are not those of its sockets: it
// stays in them.
func TestRedirectedWire(t *testing.T) {
	if testing.Short() {
		t.Skip("waits 10 s for packets that don't come")
	}
	testnet.Need(t, "root", "netns", "bpf", "peers")
	testnet.Leaks(t)
	chain := newChain(t)
	r := readRecipe(t, "Redirect")
	r.cook(t, chain.B)
	at := net.JoinHostPort(testnet.AddrC, "80")
	mirror(t, chain.C, at)
	d := runDaemonIn(t, chain.B, fmt.Sprintf("log: {interval: 100ms}\nlisteners:\n  web: {address: \":8443\", engine: wire, upstream: web}\nupstreams:\n  web: {servers: %q}\n", at))
	c := call(t, chain.A, at)
	eventually(t, func() error {
		echo1(t, c, "12345678")
		if !strings.Contains(d.stderr.all(), "wire_refused=wire-packets-unseen") {
			return errors.New("no such refusal")
		}
		return nil
	})
	_ = c.Close()
	d.stop(t)
}

// A rule that sends the proxy's own connections back to it does not make it eat its
// descriptors: the round is noticed.
func TestRedirectedRound(t *testing.T) {
	testnet.Need(t, "root", "netns", "peers")
	testnet.Leaks(t)
	chain := newChain(t)
	r := readRecipe(t, "Redirect")
	r.nft = strings.NewReplacer("prerouting", "output", "dstnat", "-100").Replace(r.nft)
	r.cook(t, chain.B)
	d := runDaemonIn(t, chain.B, "log: {format: json, start: true}\n"+r.yaml)
	for _, f := range families {
		mirror(t, chain.C, net.JoinHostPort(f.server, "80"))
		refusedBy(t, chain.B, net.JoinHostPort(f.server, "80"))
	}
	d.stderr.awaitNth(t, "own, and was sent back here", len(families))
	if n := strings.Count(d.stderr.all(), `"msg":"connection accepted"`); n == 0 || n > 1000 {
		t.Errorf("%d connections were accepted", n)
	}
	d.stop(t)
}

// A new process takes the transparent socket over, and the connections that live.
func TestTransparentUpgrade(t *testing.T) {
	testnet.Need(t, "root", "netns", "peers")
	testnet.Leaks(t)
	chain := newChain(t)
	r := readRecipe(t, "TPROXY")
	r.cook(t, chain.B)
	var d *daemonProcess
	if err := chain.B.Do(func() error { d = runUpgradable(t, r.yaml); return nil }); err != nil {
		t.Fatal(err)
	}
	var lives []*caller
	for _, f := range families {
		mirror(t, chain.C, net.JoinHostPort(f.server, "80"))
		lives = append(lives, call(t, chain.A, net.JoinHostPort(f.server, "80")))
	}
	for n := range 2 {
		if err := syscall.Kill(d.last(), syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		d.stderr.awaitNth(t, "msg=started", n+2)
		d.stderr.awaitNth(t, "msg=\"connections taken over\"", n+1)
		for i, f := range families {
			at := net.JoinHostPort(f.server, "80")
			echo1(t, lives[i], "still here")
			c := call(t, chain.A, at)
			if c.told != at+" from "+f.client {
				t.Errorf("after an upgrade the server says %q", c.told)
			}
			_ = c.Close()
		}
	}
	// A reload can't take the option from the socket.
	d.write(t, strings.Replace(r.yaml, "transparent: true", "transparent: false", 1))
	if err := syscall.Kill(d.last(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.stderr.await(t, "the socket options of :8443 can't change while it is open")
	for _, c := range lives {
		echo1(t, c, "still here")
		_ = c.CloseWrite(t)
	}
	d.stopLast(t)
}

// CloseWrite ends what the caller says, and waits for the other end.
func (c *caller) CloseWrite(t *testing.T) error {
	t.Helper()
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	rest, err := io.ReadAll(c.Conn)
	if len(rest) > 0 || err != nil {
		t.Errorf("at the end: %q, %v", rest, err)
	}
	return err
}

func TestTransparentCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	for section, want := range map[string]string{
		"TPROXY":   "capability CAP_NET_RAW for the transparent sockets of listener web",
		"Redirect": "capabilities: none needed",
	} {
		r := readRecipe(t, section)
		if err := os.WriteFile(path, []byte(r.yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, stderr, code := execute(t, "check", path); code != exitOK || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, %s%s; want %q", section, code, out, stderr, want)
		}
	}
}
