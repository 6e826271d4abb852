package proxyproto_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy/internal/peek"
	"github.com/spliced-io/spliced/proxy/internal/proxyproto"
)

const patience = 30 * time.Second

// haproxy runs a configuration, whose frontend listens on fd@3, and returns the
// address of that.
func haproxy(t *testing.T, config string) string {
	t.Helper()
	testnet.Need(t, "peers")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command("haproxy", "-db", "-f", path)
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("haproxy: %s", &out)
		}
	})
	return ln.Addr().String()
}

const defaults = `
defaults
  timeout connect 30s
  timeout client 30s
  timeout server 30s
`

// HAProxy in front: its header is read, and not a byte of what follows.
func TestFromHAProxy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		server  string
		version int
		values  map[byte]string
	}{
		"version 1": {"send-proxy", 1, nil},
		"version 2": {"send-proxy-v2", 2, nil},
		"values":    {"send-proxy-v2 proxy-v2-options crc32c,unique-id", 2, map[byte]string{proxyproto.TypeUniqueID: "the-id"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			address := haproxy(t, fmt.Sprintf("%slisten l\n  mode tcp\n  bind fd@3\n  unique-id-format the-id\n  server s %s %s\n", defaults, ln.Addr(), tt.server))
			client, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := io.WriteString(client, "hello"); err != nil {
				t.Fatal(err)
			}
			conn, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()

			var room peek.Room
			defer room.Close()
			var h proxyproto.Header
			done := make(chan error, 1)
			err = room.Wait(peek.Guest{
				Conn: conn, Deadline: time.Now().Add(patience), Done: func(o peek.Outcome) { done <- o.Err },
				Look: func(b []byte) peek.Action {
					got, size, need, err := proxyproto.Parse(b)
					if err != nil {
						t.Errorf("%q: %v", b, err)
					}
					h = got
					return peek.Action{Take: size, Need: need}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if h.Version != tt.version || h.Source.String() != client.LocalAddr().String() || h.Destination.String() != address {
				t.Errorf("got %+v, want version %d, %s to %s", h, tt.version, client.LocalAddr(), address)
			}
			for kind, want := range tt.values {
				if got, ok := h.Value(kind); !ok || string(got) != want {
					t.Errorf("value %#x: %q, %t, want %q", kind, got, ok, want)
				}
			}
			b := make([]byte, 5)
			if _, err := io.ReadFull(conn, b); err != nil || string(b) != "hello" {
				t.Errorf("the stream: %q, %v", b, err)
			}
		})
	}
}

// HAProxy behind: it takes our headers, and sees in them what was meant.
func TestToHAProxy(t *testing.T) {
	t.Parallel()
	ssl, err := (&proxyproto.SSL{Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256"}).TLV()
	if err != nil {
		t.Fatal(err)
	}
	address := haproxy(t, defaults+`
frontend f
  mode http
  bind fd@3 accept-proxy
  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_authority] %[fc_pp_unique_id]"
`)
	four := proxyproto.Header{Source: netip.MustParseAddrPort("192.0.2.1:1234"), Destination: netip.MustParseAddrPort("192.0.2.2:443")}
	six := proxyproto.Header{Source: netip.MustParseAddrPort("[2001:db8::1]:1234"), Destination: netip.MustParseAddrPort("[2001:db8::2]:443")}
	values := []proxyproto.TLV{
		{Type: proxyproto.TypeALPN, Value: []byte("http/1.1")},
		{Type: proxyproto.TypeAuthority, Value: []byte("a.example")},
		{Type: proxyproto.TypeUniqueID, Value: []byte("id-1")},
		ssl,
	}
	for name, tt := range map[string]struct {
		header   proxyproto.Header
		values   []proxyproto.TLV
		checksum bool
		want     string // of both versions, less the values
	}{
		"IPv4":     {four, nil, false, "192.0.2.1 1234 192.0.2.2 443"},
		"IPv6":     {six, nil, false, "2001:db8::1 1234 2001:db8::2 443"},
		"checksum": {four, nil, true, "192.0.2.1 1234 192.0.2.2 443"},
		"values":   {four, values, true, "192.0.2.1 1234 192.0.2.2 443"},
		"local":    {proxyproto.Header{Local: true}, nil, false, ""},
	} {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprintf("%s/version %d", name, version), func(t *testing.T) {
				t.Parallel()
				h := tt.header
				h.Version, h.TLVs = version, tt.values
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				deadline, _ := ctx.Deadline()
				_ = conn.SetDeadline(deadline)
				b, err := proxyproto.Append(nil, &h, tt.checksum)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := conn.Write(append(b, "GET / HTTP/1.0\r\n\r\n"...)); err != nil {
					t.Fatal(err)
				}
				answer, err := io.ReadAll(conn)
				if err != nil {
					t.Fatal(err)
				}
				_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
				want := tt.want
				switch {
				case h.Local:
					local, _ := netip.ParseAddrPort(conn.LocalAddr().String())
					remote, _ := netip.ParseAddrPort(address)
					want = fmt.Sprintf("%s %d %s %d", local.Addr(), local.Port(), remote.Addr(), remote.Port())
				case tt.values != nil && version == 2:
					want += " a.example id-1"
				}
				if strings.TrimSpace(body) != want {
					t.Errorf("HAProxy answered %q, want %q", answer, want)
				}
			})
		}
	}
}
