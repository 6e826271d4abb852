package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
)

// A name has an address of each family; whatever becomes of IPv6, clients get to the
// server.
func TestDualStackName(t *testing.T) {
	testnet.Need(t, "root", "netns", "peers")
	testnet.Leaks(t)
	chain := newChain(t)
	// Those of the chain are unique local ones, before which IPv4 is preferred (RFC 6724).
	const six, here = "2001:db8:2::1", "2001:db8:2::2"
	for _, err := range []error{chain.C.AddAddr(testnet.LinkCB, six+"/64"), chain.B.AddAddr(testnet.LinkBC, here+"/64")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	by6 := net.JoinHostPort(six, "80") + " from " + here
	by4 := net.JoinHostPort(testnet.AddrC, "80") + " from " + testnet.AddrBC
	mirror(t, chain.C, net.JoinHostPort(six, "80"), net.JoinHostPort(testnet.AddrC, "80"))
	dir := t.TempDir()
	hosts, config := filepath.Join(dir, "hosts"), filepath.Join(dir, "c.yaml")
	for name, text := range map[string]string{
		hosts:  fmt.Sprintf("127.0.0.1 localhost\n%s two.test\n%s two.test\n", testnet.AddrC, six),
		config: "listeners:\n  web: {address: \"" + testnet.AddrBA + ":0\", upstream: web}\nupstreams:\n  web: {servers: \"two.test:80\"}\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, args := range map[string][]string{
		"run":   {"run", "-c", config},
		"relay": {"relay", "--engine", "splice", testnet.AddrBA + ":0", "two.test:80"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := command(t, args...)
			// With a table of hosts of its own.
			unshared := append([]string{"--mount", "sh", "-euc", `mount --bind "$0" /etc/hosts; exec "$@"`, hosts}, cmd.Args...)
			outer := exec.Command("unshare", unshared...)
			outer.Env = cmd.Env
			var p *process
			if err := chain.B.Do(func() error { p = start(t, outer); return nil }); err != nil {
				t.Fatal(err)
			}
			line := p.stdout.await(t, "listening on ")
			addr := line[strings.LastIndex(line, " ")+1:]
			for _, tt := range []struct{ verdict, want string }{
				{"accept", by6}, {"drop", by4}, {"reject with tcp reset", by4},
			} {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				rules := "table ip6 fate {\n}\ndelete table ip6 fate\ntable ip6 fate {\nchain arriving {\ntype filter hook input priority 0; policy accept;\ntcp dport 80 " + tt.verdict + "\n}\n}\n"
				err := chain.C.Run(ctx, rules, "nft", "-f", "-")
				cancel()
				if err != nil {
					t.Fatal(err)
				}
				c := call(t, chain.A, addr)
				if c.told != tt.want {
					t.Errorf("%s: the server says %q, want %q", tt.verdict, c.told, tt.want)
				}
				if tt.verdict == "accept" {
					echo1(t, c, "hello")
				}
				_ = c.Close()
			}
			p.signal(os.Interrupt)
			if code := p.wait(); code != exitOK {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
