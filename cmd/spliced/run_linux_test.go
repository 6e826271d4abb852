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
	"os/exec"
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
	cmd := command(t, "run")
	cmd.Env = append(cmd.Env, env...)
	return startDaemon(t, cmd, text, (*exec.Cmd).Start)
}

// startDaemon starts the command run by a function of its own.
func startDaemon(t *testing.T, cmd *exec.Cmd, text string, begin func(*exec.Cmd) error) *daemonProcess {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	d := &daemonProcess{config: path}
	d.write(t, text)
	cmd.Args = append(cmd.Args, "-c", path)
	d.process = startIn(t, cmd, begin)
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
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveTLS(t, ln, name)
	return ln.Addr().String()
}

func serveTLS(t *testing.T, ln net.Listener, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := selfSigned(t, name, key)
	ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
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
}

// askTLS returns what the server behind addr says to a client that names sni.
func askTLS(t *testing.T, addr, sni string) (string, error) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return "", err
	}
	return listenTLS(c, sni)
}

func listenTLS(conn net.Conn, sni string) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := tls.Client(conn, &tls.Config{ServerName: sni, InsecureSkipVerify: true}) //nolint:gosec // a test
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

// The README's ten lines, and the commands below them, run as written: in a network
// of their own, where the ports are free.
func TestReadmeRun(t *testing.T) {
	testnet.Need(t, "netns")
	testnet.Leaks(t)
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)in ten lines of YAML, `(\\S+)`:\n\n```yaml\n(.*?)```\n\n```\n(.*?)```").FindSubmatch(b)
	if m == nil {
		t.Fatal("the README has no YAML with commands")
	}
	file, text, commands := string(m[1]), string(m[2]), string(m[3])
	if n := strings.Count(text, "\n"); n != 10 {
		t.Errorf("%d lines, said to be ten", n)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ns, err := testnet.New("readme")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	for name, addr := range map[string]string{"one": "127.0.0.1:9001", "two": "127.0.0.1:9002"} {
		ln, err := ns.Listen("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		serveTLS(t, ln, name)
	}
	var d *process
	for line := range strings.Lines(commands) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if words[0] != "bin/spliced" {
			continue // how it is built
		}
		cmd := command(t, words[1:]...)
		cmd.Dir = dir
		if words[1] == "check" {
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "1. sni shop.example.org or *.shop.example.org -> upstream shop") {
				t.Errorf("%s: %v\n%s", line, err, out)
			}
			continue
		}
		d = startIn(t, cmd, ns.Start)
		d.stdout.await(t, "https: listening on 127.0.0.1:8443")
	}
	if d == nil {
		t.Fatalf("none of these is run:\n%s", commands)
	}
	ask := func(sni string) (string, error) {
		c, err := ns.Dial(t.Context(), "tcp4", "127.0.0.1:8443")
		if err != nil {
			return "", err
		}
		return listenTLS(c, sni)
	}
	got := make(map[string]int)
	for i := range 8 {
		name, err := ask([]string{"shop.example.org", "a.shop.example.org"}[i%2])
		if err != nil {
			t.Fatal(err)
		}
		got[name]++
	}
	if got["one"] == 0 || got["two"] == 0 || got["one"]+got["two"] != 8 {
		t.Errorf("answers %v, want both servers", got)
	}
	if name, err := ask("other.example.org"); err == nil {
		t.Errorf("another name is answered by %q, want a reset", name)
	}
	d.stderr.await(t, `no route matches protocol tls, sni \"other.example.org\"`)
	d.signal(syscall.SIGHUP)
	d.stderr.await(t, "msg=reloaded")
	d.signal(syscall.SIGTERM)
	if code := d.wait(); code != exitOK {
		t.Errorf("exit code %d after SIGTERM", code)
	}
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

// What a configuration comes to is told: routes in their order, what the process must
// be allowed to do, and whether there is room for it.
func TestCheckTellsNeeds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	for name, tt := range map[string]struct {
		text string
		want []string
		not  string
	}{
		"nothing needed": {"listeners:\n  web: {address: ':8080', upstream: web}\nupstreams:\n  web: {servers: '10.0.0.1:80'}\n", []string{
			"listener web on :8080\n  1. everything else -> upstream web\n", "upstream web: 1 servers, round-robin, not checked", "capabilities: none needed\n",
			"wanted CAP_NET_ADMIN CAP_BPF CAP_PERFMON CAP_NET_RAW for the engine auto of listener web to hand over to wire after 1048576 bytes or 1s; without one of them connections stay with splice and copy\n", "has room for",
		}, "warning"},
		"much": {"max_connections: 2000000000\ninstance: edge\nlisteners:\n  a: {address: 'systemd:x', routes: {protocol: ssh, reject: true}}\n  b: {address: ['127.0.0.1:443', 'unix:/run/s'], engine: wire, upstream: web, routes: [{name: r, source: 10.0.0.0/8, upstream: web}]}\n" +
			"upstreams:\n  web: {servers: ['10.0.0.1:80', '10.0.0.2:80'], balance: maglev, health: {}}\n", []string{
			"listener a on systemd:x\n  1. protocol ssh -> reset\n  2. everything else -> reset\n",
			"listener b on 127.0.0.1:443, unix:/run/s\n  1. source 10.0.0.0/8 -> upstream web\n  2. everything else -> upstream web\n",
			"upstream web: 2 servers, maglev, checked", "capability CAP_NET_BIND_SERVICE to listen on 127.0.0.1:443\n",
			"capability CAP_BPF for the engine wire of listener b\n", "capability CAP_NET_ADMIN for the engine wire of listener b\n",
			"warning: max_connections is 2000000000: there is room for ",
		}, "wanted"},
		"another user, wire by name too": {"user: \"65534\"\nlisteners:\n  a: {address: ':8080', engine: wire, upstream: web}\n  b: {address: ':8081', upstream: web}\nupstreams:\n  web: {servers: '10.0.0.1:80'}\n", []string{
			"capability CAP_NET_RAW for the engine wire of listener a\n", "wanted CAP_NET_ADMIN CAP_BPF CAP_PERFMON CAP_NET_RAW for the engine auto of listener b to hand over to wire after 1048576 bytes or 1s; they are needed anyway\n",
		}, "without"},
		"another user": {"user: \"65534\"\nlisteners:\n  a: {address: ':8080', upstream: web}\n  b: {address: ':8081', upstream: web}\n  c: {address: ':8082', engine: splice, upstream: web}\nupstreams:\n  web: {servers: '10.0.0.1:80'}\n", []string{
			"for the engine auto of listener a, b to hand over to wire after 1048576 bytes or 1s; user 65534 has them only if it is given them at the start; without one of them",
		}, "warning"},
		"sockmap": {"listeners:\n  a: {address: ':8080', engine: sockmap, upstream: web}\nupstreams:\n  web: {servers: '10.0.0.1:80'}\n", []string{
			"capability CAP_NET_ADMIN for the engine sockmap of listener a\n", "capability CAP_BPF for the", "capability CAP_PERFMON for the",
		}, "CAP_NET_RAW"},
		"splice": {"listeners:\n  a: {address: ':8080', engine: splice, upstream: web}\nupstreams:\n  web: {servers: '10.0.0.1:80'}\n", []string{"capabilities: none needed\n"}, "wanted"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, code := execute(t, "check", path)
		if code != exitOK || strings.Contains(stdout, tt.not) {
			t.Errorf("%s: exit code %d, %s%s", name, code, stdout, stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: %q is not in\n%s", name, want, stdout)
			}
		}
	}
	if err := os.WriteFile(path, []byte("user: nobody-of-that-name\nlisteners:\n  web: {address: ':8080', upstream: web}\nupstreams:\n  web: {servers: '10.0.0.1:80'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := execute(t, "check", path); code != exitUsage || !strings.Contains(stderr, path+`: user "nobody-of-that-name"`) {
		t.Errorf("a user that there is not: exit code %d, %s", code, stderr)
	}
}

// A port that is taken ends the start, and says whose it was to be.
func TestRunInUse(t *testing.T) {
	path, taken := filepath.Join(t.TempDir(), "c.yaml"), tlsServer(t, "x")
	for want, text := range map[string]string{
		"listener web: listen on " + taken + ": bind: address already in use: another socket listens there": "listeners:\n  web: {address: '" + taken + "', upstream: web}\n",
		"admin: listen on " + taken + ": ":    "admin: " + taken + "\nlisteners:\n  web: {address: '127.0.0.1:0', upstream: web}\n",
		"metrics: listen tcp " + taken + ": ": "metrics: " + taken + "\nlisteners:\n  web: {address: '127.0.0.1:0', upstream: web}\n",
	} {
		if err := os.WriteFile(path, []byte(text+"upstreams:\n  web: {servers: '127.0.0.1:1'}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if stdout, stderr, code := execute(t, "run", "-c", path); code != exitFailed || !strings.Contains(stderr, want) || !strings.Contains(stderr, "address already in use") || stdout != "" {
			t.Errorf("exit code %d, %q %q, want %q", code, stdout, stderr, want)
		}
	}
}

// Sockets that the service manager passes are taken by name, and stay over a reload
// and an upgrade; a name that was not passed is an error.
func TestRunSystemd(t *testing.T) {
	testnet.Leaks(t)
	var files []*os.File
	var addrs []string
	for range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := ln.(*net.TCPListener).File()
		_ = ln.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, addrs = append(files, f), append(addrs, ln.Addr().String())
	}
	dir := t.TempDir()
	d := &daemonProcess{config: filepath.Join(dir, "c.yaml")}
	text := func(listeners string) string {
		return "admin: unix:" + dir + "/admin.sock\nlisteners:\n" + listeners + "upstreams:\n  one: {servers: '" + tlsServer(t, "one") + "'}\n  two: {servers: '" + tlsServer(t, "two") + "'}\n"
	}
	run := func() *process {
		inner := command(t, "run", "-c", d.config)
		cmd := command(t)
		cmd.Path = "/bin/sh" // LISTEN_PID is known once the process is there
		cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, inner.Path}, inner.Args[1:]...)
		cmd.Env = append(inner.Env, "LISTEN_FDS=3", "LISTEN_FDNAMES=one:two:one")
		cmd.ExtraFiles = files
		return start(t, cmd)
	}
	d.write(t, text("  one: {address: 'systemd:none', upstream: one}\n"))
	refused := run()
	if code := refused.wait(); code != exitFailed || !strings.Contains(refused.stderr.all(), "listener one: listen on systemd:none: systemd passed 3 sockets, and none of them is left for it") {
		t.Errorf("exit code %d, %s", code, refused.stderr.all())
	}
	const names = "  one: {address: 'systemd:one', upstream: one}\n  two: {address: 'systemd:two', upstream: two}\n"
	d.write(t, text(names))
	d.process = run()
	d.stderr.await(t, "msg=started")
	t.Cleanup(func() {
		for _, pid := range d.generations()[1:] {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	check := func(when string) {
		t.Helper()
		for i, want := range []string{"one", "two", "one"} {
			if name, err := askTLS(t, addrs[i], "x"); err != nil || name != want {
				t.Errorf("%s: socket %d is answered by %q, %v; want %s", when, i, name, err, want)
			}
		}
	}
	check("at first")
	d.write(t, text(names+"  more: {address: '127.0.0.1:0', upstream: one}\n"))
	d.signal(syscall.SIGHUP)
	d.stderr.await(t, "msg=reloaded")
	check("after a reload")
	if _, stderr, code := execute(t, "upgrade", "-c", d.config); code != exitOK {
		t.Fatalf("upgrade: exit code %d, %s", code, stderr)
	}
	d.stderr.awaitNth(t, "msg=ended", 1)
	check("after an upgrade")
	d.stopLast(t)
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
