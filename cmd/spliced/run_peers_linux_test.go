package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// needServers skips unless SPLICED_REAL_SERVERS is set: PostgreSQL, Redis and
// nginx have to be installed for these tests, which make test does not do yet.
func needServers(t *testing.T, what ...string) {
	t.Helper()
	if os.Getenv("SPLICED_REAL_SERVERS") == "" {
		t.Skip("SPLICED_REAL_SERVERS is not set: a test with PostgreSQL, Redis or nginx")
	}
	testnet.Need(t, what...)
}

// A foreign process is somebody else's program, which ends with the test.
func startForeign(t *testing.T, as *syscall.Credential, name string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, out.String())
		}
	})
}

// client runs somebody else's client to its end.
func client(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// freePort returns a port of 127.0.0.1 that nobody had a moment ago: programs
// that can't be told to let the kernel choose are given it.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// awaitPort waits until somebody listens.
func awaitPort(t *testing.T, port int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

// writeCertificate writes a certificate of name and its key.
func writeCertificate(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := selfSigned(t, name, k)
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// credential is that of a system user.
func credential(t *testing.T, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, errU := strconv.Atoi(u.Uid)
	gid, errG := strconv.Atoi(u.Gid)
	if errU != nil || errG != nil {
		t.Fatal(errU, errG)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// PostgreSQL with its own clients, over TLS too, and found healthy by its own
// protocol.
func TestPostgreSQL(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	needServers(t, "root", "peers")
	initdb, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(initdb) == 0 {
		t.Fatalf("no initdb: %v", err)
	}
	bin := filepath.Dir(initdb[0])
	as := credential(t, "postgres")
	dir, err := os.MkdirTemp("", "spliced-pg") // the test's own is not open to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data := filepath.Join(dir, "data")
	cert, key := writeCertificate(t, dir, "db.test")
	for _, path := range []string{dir, cert, key} {
		if err := os.Chown(path, int(as.Uid), int(as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(initdb[0], "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	port := freePort(t)
	startForeign(t, as, filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(port), "-k", dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "ssl=on", "-c", "ssl_cert_file="+cert, "-c", "ssl_key_file="+key)
	awaitPort(t, port)
	d := runDaemon(t, fmt.Sprintf(`
listeners:
  db:
    address: 127.0.0.1:0
    routes:
      - {protocol: [postgresql, postgresql-tls], upstream: db}
upstreams:
  db:
    servers: [127.0.0.1:%d, 127.0.0.1:%d]
    balance: first
    health: {interval: 200ms, send: '\x00\x00\x00\x08\x04\xd2\x16\x2f', expect: S}
`, freePort(t), port)) // the first is not there
	_, proxied, err := net.SplitHostPort(d.addr(t, "db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"disable", "require"} {
		env := []string{"PGHOST=127.0.0.1", "PGPORT=" + proxied, "PGUSER=postgres", "PGSSLMODE=" + mode, "PGCONNECT_TIMEOUT=20"}
		deadline := time.Now().Add(patience)
		for exec.Command(filepath.Join(bin, "pg_isready"), "-h", "127.0.0.1", "-p", proxied).Run() != nil && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond) // it listens before it answers
		}
		ssl := client(t, env, "psql", "-XAtc", "select ssl from pg_stat_ssl where pid = pg_backend_pid()")
		if want := map[string]string{"disable": "f", "require": "t"}[mode]; strings.TrimSpace(ssl) != want {
			t.Errorf("sslmode %s: ssl is %q", mode, ssl)
		}
		client(t, env, "pgbench", "-i", "-q", "postgres")
		if out := client(t, env, "pgbench", "-c", "4", "-t", "50", "postgres"); !strings.Contains(out, "200/200") {
			t.Errorf("pgbench: %s", out)
		}
	}
	d.stop(t)
}

func TestRedis(t *testing.T) {
	needServers(t, "peers")
	port := freePort(t)
	startForeign(t, nil, "redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	awaitPort(t, port)
	d := runDaemon(t, fmt.Sprintf(`
listeners:
  cache: {address: 127.0.0.1:0, upstream: cache}
upstreams:
  cache:
    servers: 127.0.0.1:%d
    health: {interval: 100ms, send: 'PING\r\n', expect: +PONG}
`, port))
	_, proxied, err := net.SplitHostPort(d.addr(t, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	if out := client(t, nil, "redis-cli", "-p", proxied, "set", "k", "v"); strings.TrimSpace(out) != "OK" {
		t.Errorf("set: %q", out)
	}
	if out := client(t, nil, "redis-cli", "-p", proxied, "get", "k"); strings.TrimSpace(out) != "v" {
		t.Errorf("get: %q", out)
	}
	out := client(t, nil, "redis-benchmark", "-p", proxied, "-n", "2000", "-c", "20", "-t", "set,get", "--csv")
	if !strings.Contains(out, `"GET"`) {
		t.Errorf("benchmark: %s", out)
	}
	d.stop(t)
}

// Three names behind nginx, whose TLS passes through untouched.
func TestNginxBySNI(t *testing.T) {
	needServers(t, "root", "peers")
	dir := t.TempDir()
	var servers, routes, upstreams strings.Builder
	ports := make(map[string]int)
	for _, name := range []string{"a.test", "b.test", "c.test"} {
		cert, key := writeCertificate(t, dir, name)
		ports[name] = freePort(t)
		fmt.Fprintf(&servers, "server { listen 127.0.0.1:%d ssl; ssl_certificate %s; ssl_certificate_key %s; return 200 %s; }\n", ports[name], cert, key, name)
		id := name[:1]
		fmt.Fprintf(&routes, "      - {sni: %s, upstream: %s}\n", name, id)
		fmt.Fprintf(&upstreams, "  %s: {servers: \"127.0.0.1:%d\", health: {interval: 200ms, tls: true, http: {}}}\n", id, ports[name])
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf("daemon off; pid %s/pid; error_log stderr; events {}\nhttp { access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;\n%s}\n", dir, servers.String())
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startForeign(t, nil, "nginx", "-c", conf, "-e", "stderr")
	for _, port := range ports {
		awaitPort(t, port)
	}
	d := runDaemon(t, "listeners:\n  https:\n    address: 127.0.0.1:0\n    routes:\n"+routes.String()+"upstreams:\n"+upstreams.String())
	_, port, err := net.SplitHostPort(d.addr(t, "https"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range ports {
		cacert := filepath.Join(dir, name+".crt") // its own: the handshake was not touched
		out := client(t, nil, "curl", "-sS", "--cacert", cacert, "--resolve", name+":"+port+":127.0.0.1", "https://"+name+":"+port+"/")
		if out != name {
			t.Errorf("%s is answered by %q", name, out)
		}
	}
	d.stop(t)
}
