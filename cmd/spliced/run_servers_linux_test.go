package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// PostgreSQL with its own clients, over TLS too, and found healthy by its own
// protocol.
func TestPostgreSQL(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	testnet.Need(t, "root", "postgresql")
	initdb, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(initdb) == 0 {
		t.Fatalf("no initdb: %v", err)
	}
	testnet.Leaks(t)
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
	cmd := exec.Command(initdb[0], "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--no-instructions")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := vacantAddr(t)
	host, port := hostPort(t, server)
	startForeign(t, as, filepath.Join(bin, "postgres"), "-D", data, "-p", port, "-k", dir,
		"-c", "listen_addresses="+host, "-c", "fsync=off", "-c", "ssl=on", "-c", "ssl_cert_file="+cert, "-c", "ssl_key_file="+key)
	awaitListener(t, server)
	d := runDaemon(t, fmt.Sprintf(`
log: {format: json}
listeners:
  db:
    address: 127.0.0.1:0
    routes:
      - {protocol: [postgresql, postgresql-tls], upstream: db}
upstreams:
  db:
    servers: [%q, %q]
    balance: first
    health: {interval: 200ms, send: '\x00\x00\x00\x08\x04\xd2\x16\x2f', expect: S}
`, closedPort(t), server))
	_, proxied := hostPort(t, d.addr(t, "db"))
	conversations := 0
	for _, mode := range []string{"disable", "require"} {
		env := []string{"PGHOST=127.0.0.1", "PGPORT=" + proxied, "PGUSER=postgres", "PGSSLMODE=" + mode, "PGCONNECT_TIMEOUT=20"}
		deadline := time.Now().Add(patience)
		for exec.Command(filepath.Join(bin, "pg_isready"), "-U", "postgres", "-h", "127.0.0.1", "-p", proxied).Run() != nil && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond) // it listens before it answers
		}
		ssl := client(t, env, filepath.Join(bin, "psql"), "-XAtc", "select ssl from pg_stat_ssl where pid = pg_backend_pid()")
		if want := map[string]string{"disable": "f", "require": "t"}[mode]; strings.TrimSpace(ssl) != want {
			t.Errorf("sslmode %s: ssl is %q", mode, ssl)
		}
		client(t, env, filepath.Join(bin, "pgbench"), "-i", "-q", "postgres")
		if out := client(t, env, filepath.Join(bin, "pgbench"), "-c", "4", "-t", "50", "postgres"); !strings.Contains(out, "200/200") {
			t.Errorf("pgbench: %s", out)
		}
		// All that it has loaded, as the client got it and as the server says.
		rows := client(t, env, filepath.Join(bin, "psql"), "-XAtc", "copy (select repeat(md5(aid::text), 2) from pgbench_accounts order by aid) to stdout")
		said := client(t, env, filepath.Join(bin, "psql"), "-XAtc", "select encode(sha256(convert_to(string_agg(repeat(md5(aid::text), 2) || E'\\n', '' order by aid), 'UTF8')), 'hex') from pgbench_accounts")
		if sum := sha256.Sum256([]byte(rows)); len(rows) != 65*100000 || hex.EncodeToString(sum[:]) != strings.TrimSpace(said) {
			t.Errorf("sslmode %s: %d bytes of rows with hash %x, the server says %s", mode, len(rows), sum, said)
		}
		conversations += 1 + 1 + 4 + 2 // at least
	}
	d.stop(t)
	// With TLS the server's close_notify meets a client that has closed, and
	// pg_isready does not wait for it.
	d.expectEnds(t, conversations, 6e6, "eof", "reset-by-drain", "reset-by-source")
}

func TestRedis(t *testing.T) {
	testnet.Need(t, "redis")
	testnet.Leaks(t)
	server := vacantAddr(t)
	host, port := hostPort(t, server)
	startForeign(t, nil, "redis-server", "--port", port, "--bind", host, "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	awaitListener(t, server)
	d := runDaemon(t, fmt.Sprintf(`
log: {format: json}
listeners:
  cache: {address: 127.0.0.1:0, upstream: cache}
upstreams:
  cache:
    servers: %q
    health: {interval: 100ms, send: 'PING\r\n', expect: +PONG}
`, server))
	_, proxied := hostPort(t, d.addr(t, "cache"))
	if out := client(t, nil, "redis-cli", "-p", proxied, "set", "k", "v"); strings.TrimSpace(out) != "OK" {
		t.Errorf("set: %q", out)
	}
	if out := client(t, nil, "redis-cli", "-p", proxied, "get", "k"); strings.TrimSpace(out) != "v" {
		t.Errorf("get: %q", out)
	}
	const size = 4 << 20
	if out := client(t, nil, "redis-cli", "-p", proxied, "setrange", "big", fmt.Sprint(size-1), "x"); strings.TrimSpace(out) != fmt.Sprint(size) {
		t.Errorf("setrange: %q", out)
	}
	if out := client(t, nil, "redis-cli", "-p", proxied, "--raw", "get", "big"); out != strings.Repeat("\x00", size-1)+"x\n" {
		t.Errorf("get: %d bytes", len(out))
	}
	for _, pipelined := range []string{"1", "16"} {
		out := client(t, nil, "redis-benchmark", "-p", proxied, "-n", "2000", "-c", "20", "-P", pipelined, "-t", "set,get", "--csv")
		if !strings.Contains(out, `"GET"`) {
			t.Errorf("benchmark: %s", out)
		}
	}
	if out := client(t, nil, "redis-cli", "-p", proxied, "info", "stats"); !strings.Contains(out, "total_error_replies:0\r\n") {
		t.Errorf("the server has seen errors: %s", out)
	}
	d.stop(t)
	d.expectEnds(t, 80, size, "eof", "reset-by-drain", "reset-by-source")
}

// Three names behind nginx, whose TLS passes through untouched, by HTTP/1.1 and
// by HTTP/2.
func TestNginxBySNI(t *testing.T) {
	testnet.Need(t, "peers")
	testnet.Leaks(t)
	dir := t.TempDir()
	large := make([]byte, 8<<20)
	fillPattern(large, 0)
	if err := os.WriteFile(filepath.Join(dir, "large"), large, 0o600); err != nil {
		t.Fatal(err)
	}
	var servers, routes, upstreams strings.Builder
	names := map[string]string{} // and addresses
	for _, name := range []string{"a.test", "b.test", "c.test"} {
		cert, key := writeCertificate(t, dir, name)
		names[name] = vacantAddr(t)
		fmt.Fprintf(&servers, "server { listen %s ssl http2; ssl_certificate %s; ssl_certificate_key %s; root %s; location = / { return 200 %s; } }\n",
			names[name], cert, key, dir, name)
		id := name[:1]
		fmt.Fprintf(&routes, "      - {sni: %s, upstream: %s}\n", name, id)
		fmt.Fprintf(&upstreams, "  %s: {servers: %q, health: {interval: 200ms, tls: true, http: {}}}\n", id, names[name])
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // who may read the test's files
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf("%s daemon off; pid %s/pid; error_log stderr; events {}\n"+
		"http { access_log off; client_body_temp_path %[2]s; proxy_temp_path %[2]s; fastcgi_temp_path %[2]s; uwsgi_temp_path %[2]s; scgi_temp_path %[2]s;\n%s}\n", user, dir, servers.String())
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startForeign(t, nil, "nginx", "-c", conf, "-e", "stderr")
	for _, addr := range names {
		awaitListener(t, addr)
	}
	d := runDaemon(t, "log: {format: json}\nlisteners:\n  https:\n    address: 127.0.0.1:0\n    routes:\n"+routes.String()+"upstreams:\n"+upstreams.String())
	_, port := hostPort(t, d.addr(t, "https"))
	for name := range names {
		for _, version := range []string{"1.1", "2"} {
			site := "https://" + name + ":" + port
			out := client(t, nil, "curl", "-sS", "--fail", "--http"+version, "--write-out", "%{http_version}",
				"--cacert", filepath.Join(dir, name+".crt"), // its own: the handshake was not touched
				"--resolve", name+":"+port+":127.0.0.1", site+"/", site+"/large")
			if out != name+version+string(large)+version {
				t.Errorf("%s is answered by %q and %d bytes, want %q and those of the file", name, out[:min(len(out), 20)], len(out), name+version)
			}
		}
	}
	d.stop(t)
	d.expectEnds(t, 6, 8<<20, "eof", "reset-by-drain", "reset-by-source")
	for _, end := range d.ends(t) {
		if sni, _ := end["sni"].(string); end["server"] != names[sni] {
			t.Errorf("name %q went to %v, want %s", sni, end["server"], names[sni])
		}
	}
}
