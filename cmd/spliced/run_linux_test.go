package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy/config"
)

// A daemonProcess is a running `spliced run`.
type daemonProcess struct {
	*process
	config string
}

// runDaemon starts it with a configuration and waits until it listens.
func runDaemon(t *testing.T, text string, env ...string) *daemonProcess {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	d := &daemonProcess{config: path}
	d.write(t, text)
	cmd := command(t, "run", "-c", path)
	cmd.Env = append(cmd.Env, env...)
	d.process = start(t, cmd)
	d.stderr.await(t, "started")
	return d
}

func (d *daemonProcess) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// addr returns where a listener listens.
func (d *daemonProcess) addr(t *testing.T, listener string) string {
	t.Helper()
	prefix := listener + ": listening on "
	return strings.TrimPrefix(d.stdout.await(t, prefix), prefix)
}

func (d *daemonProcess) stop(t *testing.T) {
	t.Helper()
	d.signal(syscall.SIGTERM)
	if code := d.wait(); code != exitOK {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

// selfSigned returns a certificate of name.
func selfSigned(t *testing.T, name string, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// tlsServer says name to whoever completes a handshake with it.
func tlsServer(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := selfSigned(t, name, key)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				if c.(*tls.Conn).Handshake() == nil {
					_, _ = io.WriteString(c, name)
				}
			}()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String()
}

// askTLS returns what the server behind addr says to a client that names sni.
func askTLS(t *testing.T, addr, sni string) (string, error) {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, &tls.Config{ServerName: sni, InsecureSkipVerify: true}) //nolint:gosec // a test
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(c)
	return string(b), err
}

// The README's ten lines, with other ports.
func TestReadmeRun(t *testing.T) {
	testnet.Leaks(t)
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml\n(listeners:.*?)```").FindSubmatch(b)
	if m == nil {
		t.Fatal("the README has no YAML")
	}
	text := string(m[1])
	if n := strings.Count(text, "\n"); n != 10 {
		t.Errorf("%d lines, said to be ten", n)
	}
	one, two := tlsServer(t, "one"), tlsServer(t, "two")
	text = strings.NewReplacer("127.0.0.1:8443", "127.0.0.1:0", "127.0.0.1:9001", one, "127.0.0.1:9002", two).Replace(text)
	d := runDaemon(t, text)
	addr := d.addr(t, "https")
	got := make(map[string]int)
	for i := range 8 {
		name, err := askTLS(t, addr, []string{"shop.example.org", "a.shop.example.org"}[i%2])
		if err != nil {
			t.Fatal(err)
		}
		got[name]++
	}
	if got["one"] == 0 || got["two"] == 0 || got["one"]+got["two"] != 8 {
		t.Errorf("answers %v, want both servers", got)
	}
	if name, err := askTLS(t, addr, "other.example.org"); err == nil {
		t.Errorf("another name is answered by %q, want a reset", name)
	}
	d.stderr.await(t, "no route matches")
	d.stop(t)
}

// exampleCertificates has the files that the example names.
func exampleCertificates(t *testing.T) (dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: selfSigned(t, "www.example.org", key)})
	dir = t.TempDir()
	for name, text := range map[string][]byte{
		"www.pem": public, "www.key": secret, "proxy.pem": public, "proxy.key": secret,
		"other.pem": append(slices.Clone(public), secret...), "clients.pem": public, "inside-ca.pem": public,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Certificates are read by a check, and what is wrong with one has its place. Who
// only asks the daemon for something need not be able to read them.
func TestCheckReadsCertificates(t *testing.T) {
	dir := exampleCertificates(t)
	path := filepath.Join(dir, "c.yaml")
	const text = `admin: unix:DIR/admin.sock
listeners:
  web:
    address: 127.0.0.1:0
    upstream: web
    tls:
      certificates: {certificate: DIR/www.pem, key: DIR/KEY}
upstreams:
  web:
    servers: 127.0.0.1:1
    tls: {ca: DIR/CA}
`
	for _, tt := range []struct{ key, ca, want string }{
		{"www.key", "clients.pem", ""},
		{"none.key", "clients.pem", path + ":7:7: "},
		{"www.key", "www.key", path + ":11:10: "},
	} {
		config := strings.NewReplacer("DIR", dir, "KEY", tt.key, "CA", tt.ca).Replace(text)
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stderr, code := execute(t, "check", path)
		if tt.want == "" && code != exitOK || tt.want != "" && (code != exitUsage || !strings.Contains(stderr, tt.want) || !strings.Contains(stderr, dir)) {
			t.Errorf("check with %s and %s: exit code %d, %q; want %q", tt.key, tt.ca, code, stderr, tt.want)
		}
		if _, stderr, code = execute(t, "reload", "-c", path); code != exitFailed || !strings.Contains(stderr, "admin.sock") {
			t.Errorf("reload with %s and %s: exit code %d, %q; want it to ask the daemon", tt.key, tt.ca, code, stderr)
		}
	}
}

func TestExampleConfig(t *testing.T) {
	t.Setenv("CERTIFICATES", exampleCertificates(t))
	stdout, stderr, code := execute(t, "check", "../../docs/example.yaml")
	if code != exitOK || !strings.Contains(stdout, "1. sni api.example.org and alpn h2 -> upstream api") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	b, err := os.ReadFile("../../docs/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Properties map[string]any
		Defs       map[string]struct{ Properties map[string]any } `json:"$defs"`
	}
	if err := json.Unmarshal(config.Schema(), &s); err != nil {
		t.Fatal(err)
	}
	keys := slices.Collect(maps.Keys(s.Properties))
	for _, d := range s.Defs {
		keys = slices.AppendSeq(keys, maps.Keys(d.Properties))
	}
	if len(keys) < 60 {
		t.Errorf("only %d keys in the schema", len(keys))
	}
	for _, key := range keys {
		if !strings.Contains(string(b), key+":") {
			t.Errorf("the example lacks the key %q", key)
		}
	}
}

// What make bench measures as the path "run" is a configuration that runs.
func TestBenchConfig(t *testing.T) {
	testnet.Leaks(t)
	path, err := filepath.Abs("../../docs/bench-run.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "run", "-c", path)
	cmd.Env = append(cmd.Env, "LISTEN=127.0.0.1:0", "TARGET="+echoServer(t))
	d := &daemonProcess{process: start(t, cmd)}
	c, err := net.DialTimeout("tcp", d.addr(t, "bench"), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	echo1(t, c, "through")
	_ = c.Close()
	d.stderr.await(t, `"msg":"connection ended"`)
	d.stop(t)
}

func TestCheckMistakes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("listeners:\n  web: {address: \":443\", upstrem: web}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"check", path}, {"run", "-c", path}, {"reload", "-c", path}} {
		_, stderr, code := execute(t, command...)
		if want := path + `:2:26: there is no key "upstrem" here: did you mean "upstream"?`; code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit code %d, %q, want %q", command, code, stderr, want)
		}
	}
}

// A reload takes what is right, and leaves everything as it was if anything is
// wrong.
func TestReload(t *testing.T) {
	testnet.Leaks(t)
	one, two := tlsServer(t, "one"), tlsServer(t, "two")
	socket := filepath.Join(t.TempDir(), "admin.sock")
	text := func(server, rest string) string {
		return "admin: unix:" + socket + "\nlisteners:\n  web: {address: 127.0.0.1:0, upstream: web}\n" + rest +
			"upstreams:\n  web: {servers: " + server + "}\n"
	}
	d := runDaemon(t, text(one, ""))
	addr := d.addr(t, "web")
	ask := func(want string) {
		t.Helper()
		if name, err := askTLS(t, addr, "x"); err != nil || name != want {
			t.Errorf("answer %q, %v; want %q", name, err, want)
		}
	}
	ask("one")
	d.write(t, text(two, ""))
	if _, stderr, code := execute(t, "reload", "-c", d.config); code != exitOK {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	ask("two")
	// An address in use: found after the file was checked.
	d.write(t, text(one, "  more: {address: "+two+", upstream: web}\n"))
	if _, stderr, code := execute(t, "reload", "-c", d.config); code != exitFailed || !strings.Contains(stderr, "address already in use") {
		t.Errorf("exit code %d, %q, want 1 and the reason", code, stderr)
	}
	ask("two")
	d.write(t, text(one, ""))
	d.signal(syscall.SIGHUP)
	d.stderr.awaitNth(t, "msg=reloaded", 2)
	ask("one")
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v, %v; want nobody else to use it", info, err)
	}
	d.stop(t)
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the admin socket is still there: %v", err)
	}
}
