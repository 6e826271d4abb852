package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// A talk is a conversation with an echo server through a proxy.
type talk struct {
	c          net.Conn
	sent, back hash.Hash
	returned   chan error
}

func startTalk(addr string) (*talk, error) { return startTalkFrom(nil, addr) }

// startTalkFrom is by an address of this machine; nil: any.
func startTalkFrom(local net.Addr, addr string) (*talk, error) {
	c, err := (&net.Dialer{Timeout: patience, LocalAddr: local}).Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	k := &talk{c: c, sent: sha256.New(), back: sha256.New(), returned: make(chan error, 1)}
	go func() {
		_, err := io.Copy(k.back, c)
		k.returned <- err
	}()
	return k, nil
}

func (k *talk) say(b []byte) error {
	k.sent.Write(b)
	_ = k.c.SetWriteDeadline(time.Now().Add(patience))
	_, err := k.c.Write(b)
	return err
}

// end says whether all has come back.
func (k *talk) end() error {
	defer k.c.Close()
	if err := k.c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_ = k.c.SetReadDeadline(time.Now().Add(patience))
	if err := <-k.returned; err != nil {
		return err
	}
	if !bytes.Equal(k.sent.Sum(nil), k.back.Sum(nil)) {
		return errors.New("what came back is not what was sent")
	}
	return nil
}

// A crowd are clients of a proxy: some that stay, in the middle of a transfer, and
// some that come and go.
type crowd struct {
	t        *testing.T
	addr     string
	stop     chan struct{}
	wg       sync.WaitGroup
	short    atomic.Int64 // conversations
	longest  time.Duration
	pause    time.Duration // of those that stay, between two messages, at most
	finished sync.Once
}

// startCrowd has stay clients stay, and others be there at a time, each for a
// millisecond up to longest.
func startCrowd(t *testing.T, addr string, stay, others int, longest time.Duration) *crowd {
	t.Helper()
	w := &crowd{t: t, addr: addr, stop: make(chan struct{}), longest: longest, pause: time.Duration(stay) * 2 * time.Millisecond}
	t.Cleanup(w.end)
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for range stay {
		k, err := startTalk(addr)
		if err != nil {
			t.Fatal(err)
		}
		w.wg.Go(func() { w.stay(k, data) })
	}
	for range others {
		w.wg.Go(func() { w.comeAndGo(data) })
	}
	return w
}

// stay talks until the end of the crowd.
func (w *crowd) stay(k *talk, data []byte) {
	for {
		n := 1 + rand.IntN(64<<10)
		at := rand.IntN(len(data) - n)
		if err := k.say(data[at : at+n]); err != nil {
			w.t.Errorf("a client that stays: %v", err)
			return
		}
		select {
		case <-time.After(time.Duration(rand.Int64N(int64(w.pause)))):
			continue
		case <-w.stop:
		}
		break
	}
	if err := k.end(); err != nil {
		w.t.Errorf("a client that stays: %v", err)
	}
}

func (w *crowd) comeAndGo(data []byte) {
	for {
		select {
		case <-w.stop:
			return
		default:
		}
		stay := time.Duration(float64(time.Millisecond) * math.Pow(float64(w.longest/time.Millisecond), rand.Float64()))
		k, err := startTalk(w.addr)
		if err == nil {
			if err = k.say(data[:1+rand.IntN(10_000)]); err == nil {
				select {
				case <-time.After(stay):
				case <-w.stop:
				}
				err = k.end()
			}
		}
		if err != nil {
			w.t.Errorf("a client that comes and goes: %v", err)
			return
		}
		w.short.Add(1)
	}
}

func (w *crowd) end() {
	w.finished.Do(func() { close(w.stop) })
	w.wg.Wait()
}

// generations are the processes that a daemon was, the last one last.
func (d *daemonProcess) generations() (pids []int) {
	for _, m := range regexp.MustCompile(`(?m)msg=started .*pid=(\d+)`).FindAllStringSubmatch(d.stderr.all(), -1) {
		pid, _ := strconv.Atoi(m[1])
		pids = append(pids, pid)
	}
	return pids
}

// runUpgradable is runDaemon for one of which no process is left in the end.
func runUpgradable(t *testing.T, text string, env ...string) *daemonProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemonProcess{config: filepath.Join(t.TempDir(), "c.yaml")}
	d.write(t, text)
	cmd := exec.Command(exe, "run", "-c", d.config) // for as long as it takes
	cmd.Env = append(append(os.Environ(), beCommand+"=1"), env...)
	d.process = start(t, cmd)
	d.stderr.await(t, "msg=started")
	t.Cleanup(func() {
		for _, pid := range d.generations()[1:] { // the first is the test's own
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return d
}

// last is the process that accepts.
func (d *daemonProcess) last() int {
	pids := d.generations()
	return pids[len(pids)-1]
}

// stopLast ends the last process, and waits until all have ended.
func (d *daemonProcess) stopLast(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(d.last(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.wait() // the output is closed when the last of them is
}

// descriptors counts those of a process.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// descriptorKinds counts them by what they are.
func descriptorKinds(t *testing.T, pid int) map[string]int {
	t.Helper()
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]int)
	for _, path := range list {
		if what, err := os.Readlink(path); err == nil { // else it is closed by now
			kind, _, _ := strings.Cut(what, ":[")
			kinds[kind]++
		}
	}
	return kinds
}

// A new process takes the place of the old one, again and again, by signal and by
// command, and the clients notice nothing.
//
// SPLICED_UPGRADES is the number of upgrades, 5 by default; with 50 and more there
// are 500 clients that stay, and others stay for up to 10 s.
func TestUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	// By hand with the engine wire too, where it can be had.
	times, stay, longest, engine := 5, 30, 300*time.Millisecond, "splice"
	if v := os.Getenv("SPLICED_UPGRADES"); v != "" {
		var err error
		if times, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
		if times >= 50 {
			stay, longest, engine = 500, 10*time.Second, "auto"
		}
	}
	testnet.Leaks(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "admin.sock")
	d := runUpgradable(t, fmt.Sprintf(`
admin: unix:%s
metrics: 127.0.0.1:0
listeners:
  echo: {address: 127.0.0.1:0, upstream: echo, engine: %s}
  file: {address: "unix:%s/listener.sock", upstream: echo}
upstreams:
  echo: {servers: "%s", health: {interval: 200ms}}
`, socket, engine, dir, testnet.Echo(t, "tcp", "127.0.0.1:0")))
	addr := d.addr(t, "echo")
	idle := descriptors(t, d.last())
	page := regexp.MustCompile(`url=(\S+)`).FindStringSubmatch(d.stderr.await(t, "msg=metrics"))[1]
	w := startCrowd(t, addr, stay, 16, longest)
	for i := range times {
		if i%2 == 0 {
			if err := syscall.Kill(d.last(), syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
		} else if out, stderr, code := execute(t, "upgrade", "-c", d.config); code != exitOK {
			t.Fatalf("exit code %d, %s", code, stderr)
		} else if _, err := strconv.Atoi(strings.TrimSpace(out)); err != nil {
			t.Errorf("it prints %q, want the process", out)
		}
		for _, line := range []string{
			d.stderr.awaitNth(t, "msg=\"connections taken over\"", i+1),
			d.stderr.awaitNth(t, "msg=\"connections handed over\"", i+1),
		} {
			if strings.Contains(line, "error") || !strings.Contains(line, "lost=0") && !strings.Contains(line, "staying=0") {
				t.Error(line)
			}
		}
		d.stderr.awaitNth(t, "msg=ended", i+1)
		d.stderr.awaitNth(t, "msg=started", i+2)
	}
	pids := d.generations()
	if len(pids) != times+1 {
		t.Errorf("%d generations after %d upgrades", len(pids), times)
	}
	answer, err := http.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if err != nil || !strings.Contains(string(text), `spliced_listener_joined{engine=`) {
		t.Errorf("metrics after the upgrades: %v\n%s", err, text)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v, %v", info, err)
	}
	c, err := net.Dial("unix", filepath.Join(dir, "listener.sock"))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	w.end()
	if w.short.Load() == 0 {
		t.Error("nobody has come and gone")
	}
	// The engine wire, once loaded, keeps some for itself.
	left := descriptors(t, d.last())
	for deadline := time.Now().Add(patience); left > idle+30; left = descriptors(t, d.last()) {
		if time.Now().After(deadline) {
			t.Errorf("the last process has %v without a connection, the first had %d descriptors", descriptorKinds(t, d.last()), idle)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("%d upgrades, %d clients stayed, %d conversations beside; descriptors %d, in the end %d", times, stay, w.short.Load(), idle, left)
	for line := range strings.Lines(d.stderr.all()) {
		switch line = strings.TrimSpace(line); {
		case strings.Contains(line, "msg=upgraded"), strings.Contains(line, "handed over"),
			strings.Contains(line, `msg="server down"`), strings.Contains(line, `msg="no target reached"`):
			t.Log(line)
		case strings.Contains(line, `msg="connection ended" listener=echo`) && !strings.Contains(line, "end_to_target=eof end_to_client=eof"):
			t.Error(line)
		}
	}
	d.stopLast(t)
	for _, name := range []string{"admin.sock", "listener.sock"} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	deadline := time.Now().Add(patience)
	for _, pid := range pids {
		for running(pid) { // its output is closed a moment before
			if time.Now().After(deadline) {
				t.Fatalf("process %d is still there", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// running says whether a process has not ended. One whose parent has ended is
// init's to wait for, which may take its time.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(b, []byte(") Z ")) && !bytes.Contains(b, []byte(") X "))
}

// What can't take over does not.
func TestUpgradeRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	testnet.Leaks(t)
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "spliced")
	install := func(from string, text []byte) {
		t.Helper()
		if text == nil {
			if text, err = os.ReadFile(from); err != nil {
				t.Fatal(err)
			}
		}
		fresh := filepath.Join(dir, "new")
		if err := os.WriteFile(fresh, text, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(fresh, program); err != nil {
			t.Fatal(err)
		}
	}
	install(exe, nil)
	good := fmt.Sprintf("admin: unix:%s/admin.sock\nlisteners:\n  echo: {address: 127.0.0.1:0, upstream: echo}\nupstreams:\n  echo: {servers: \"%s\"}\n", dir, testnet.Echo(t, "tcp", "127.0.0.1:0"))
	d := &daemonProcess{config: filepath.Join(dir, "c.yaml")}
	d.write(t, good)
	cmd := command(t, "run", "-c", d.config)
	cmd.Path, cmd.Args[0] = program, program
	d.process = start(t, cmd)
	d.stderr.await(t, "msg=started")
	t.Cleanup(func() {
		for _, pid := range d.generations()[1:] {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	k, err := startTalk(d.addr(t, "echo"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		prepare func()
		want    string
	}{
		{"wrong file", func() { d.write(t, good+"nonsense: 1\n") }, `there is no key "nonsense" here`},
		{"port in use", func() {
			d.write(t, strings.Replace(good, "upstreams:", "  more: {address: \""+d.addr(t, "echo")+"\", upstream: echo}\nupstreams:", 1))
		}, "address already in use"},
		{"no program", func() { install("", []byte("\x7fELF, nearly")) }, "exec format error"},
		{"another program", func() { install("/bin/true", nil) }, "it has ended"},
		{"none at all", func() { _ = os.Remove(program) }, "no such file"},
	} {
		d.write(t, good)
		test.prepare()
		_, stderr, code := execute(t, "upgrade", "-c", d.config)
		if test.name == "wrong file" { // of which the command is told itself
			if code != exitUsage {
				t.Errorf("%s: exit code %d, %q", test.name, code, stderr)
			}
			d.signal(syscall.SIGUSR2)
			stderr = d.stderr.await(t, "upgrade refused")
			code = exitFailed
		} else if !strings.HasPrefix(stderr, "spliced: upgrade refused, the old process goes on:\n") {
			t.Errorf("%s: %q does not say that the old process goes on", test.name, stderr)
		}
		if code != exitFailed || !strings.Contains(stderr, test.want) && !strings.Contains(stderr, strings.ReplaceAll(test.want, `"`, `\"`)) {
			t.Errorf("%s: exit code %d, %q, want %q", test.name, code, stderr, test.want)
		}
		if err := k.say([]byte(test.name)); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if pids := d.generations(); len(pids) != 1 {
			t.Errorf("%s: generations %v", test.name, pids)
		}
	}
	install(exe, nil)
	d.write(t, good)
	if _, stderr, code := execute(t, "upgrade", "-c", d.config); code != exitOK {
		t.Errorf("at last: exit code %d, %s", code, stderr)
	}
	d.stderr.awaitNth(t, "msg=started", 2)
	if err := k.say([]byte("at last")); err != nil {
		t.Error(err)
	}
	if err := k.end(); err != nil {
		t.Error(err)
	}
	d.stopLast(t)
}

// A signal for an upgrade while one is under way begins none, and the log says so.
func TestUpgradeAgain(t *testing.T) {
	testnet.Leaks(t)
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, pids := filepath.Join(dir, "spliced"), filepath.Join(dir, "pids")
	if err := os.Symlink(exe, program); err != nil {
		t.Fatal(err)
	}
	d := &daemonProcess{config: filepath.Join(dir, "c.yaml")}
	d.write(t, fmt.Sprintf("listeners:\n  echo: {address: 127.0.0.1:0, upstream: echo}\nupstreams:\n  echo: {servers: %q}\n", testnet.Echo(t, "tcp", "127.0.0.1:0")))
	cmd := command(t, "run", "-c", d.config)
	cmd.Path, cmd.Args[0] = program, program
	d.process = start(t, cmd)
	d.stderr.await(t, "msg=started")
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	silent := fmt.Sprintf("#!/bin/sh\necho $$ >> %s\nexec sleep 1000\n", pids)
	if err := os.WriteFile(program, []byte(silent), 0o700); err != nil {
		t.Fatal(err)
	}
	d.signal(syscall.SIGUSR2)
	d.stderr.await(t, "msg=upgrading")
	d.signal(syscall.SIGUSR2)
	d.stderr.await(t, `msg="upgrade not begun" error="an upgrade is under way"`)
	var pid int
	eventually(t, func() error {
		text, err := os.ReadFile(pids)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(text))) // of one process only
		}
		return err
	})
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.stderr.await(t, "upgrade refused")
	d.stop(t)
	if n := strings.Count(d.stderr.all(), "msg=upgrading"); n != 1 {
		t.Errorf("%d upgrades were begun", n)
	}
}

// The file of an admin socket is removed by whoever has the socket, and only if it
// is still that of the socket: after an upgrade too, and if the address has changed.
func TestUpgradeLeavesForeignAdminFile(t *testing.T) {
	testnet.Leaks(t)
	dir := t.TempDir()
	text := func(admin string) string {
		return fmt.Sprintf("admin: unix:%s/%s\nlisteners:\n  echo: {address: 127.0.0.1:0, upstream: echo}\nupstreams:\n  echo: {servers: 127.0.0.1:1}\n", dir, admin)
	}
	d := runUpgradable(t, text("a"))
	upgrades := 0
	upgrade := func() {
		t.Helper()
		upgrades++
		_ = syscall.Kill(d.last(), syscall.SIGUSR2)
		d.stderr.awaitNth(t, "msg=started", 1+upgrades)
		d.stderr.awaitNth(t, "msg=ended", upgrades)
	}
	there := func(name string, want bool) {
		t.Helper()
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
	foreign := func(name string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	upgrade()
	there("a", true)
	d.write(t, text("b"))
	upgrade()
	there("a", false) // nobody answers there any more
	foreign("b")
	d.write(t, text("c"))
	upgrade()
	there("b", true)
	upgrade()
	foreign("c")
	upgrade()
	d.stopLast(t)
	there("c", true)
}

// A TLS session that ends in the proxy stays with the old process until it ends; new
// clients get what the files have by now from the new one, which asks of them what the
// configuration says.
func TestUpgradeTLS(t *testing.T) {
	testnet.Leaks(t)
	dir := t.TempDir()
	certificate, key, roots := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"), x509.NewCertPool()
	renew := func() tls.Certificate { // and trust it
		t.Helper()
		private, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		pair := tls.Certificate{Certificate: [][]byte{selfSigned(t, "a.example", private)}, PrivateKey: private}
		pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		roots.AddCert(pair.Leaf)
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		for path, block := range map[string]pem.Block{certificate: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
			if err := os.WriteFile(path, pem.EncodeToMemory(&block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return pair
	}
	own := renew()
	authority := filepath.Join(dir, "clients.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	first := renew()
	d := runUpgradable(t, fmt.Sprintf(`
admin: unix:%s/admin.sock
listeners:
  echo:
    address: 127.0.0.1:0
    upstream: echo
    tls: {certificates: {certificate: %s, key: %s}, min_version: 1.3, alpn: h2, client_certificate: required, client_ca: %s}
upstreams:
  echo: {servers: "%s"}
`, dir, certificate, key, authority, testnet.Echo(t, "tcp", "127.0.0.1:0")))
	dial := func(version uint16, show ...tls.Certificate) (*tls.Conn, error) {
		t.Helper()
		c, err := net.DialTimeout("tcp", d.addr(t, "echo"), patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		session := tls.Client(c, &tls.Config{ServerName: "a.example", RootCAs: roots, NextProtos: []string{"h2"}, MaxVersion: version, Certificates: show})
		if _, err := session.Write([]byte("hello")); err != nil {
			return nil, err
		}
		_, err = io.ReadFull(session, make([]byte, 5))
		return session, err
	}
	shows := func(c *tls.Conn, pair tls.Certificate) bool {
		return c.ConnectionState().PeerCertificates[0].Equal(pair.Leaf)
	}
	stays, err := dial(0, own)
	if err != nil {
		t.Fatal(err)
	}
	second := renew()
	if _, stderr, code := execute(t, "upgrade", "-c", d.config); code != exitOK {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	if line := d.stderr.await(t, "msg=\"connections handed over\""); !strings.Contains(line, "connections=0 staying=1") {
		t.Error(line)
	}
	fresh, err := dial(0, own)
	if err != nil {
		t.Fatal(err)
	}
	if got := fresh.ConnectionState(); !shows(stays, first) || !shows(fresh, second) || got.NegotiatedProtocol != "h2" {
		t.Errorf("after the upgrade the new certificate is shown: %v, and %q", shows(fresh, second), got.NegotiatedProtocol)
	}
	for what, err := range map[string]error{
		"no certificate": func() error { _, err := dial(0); return err }(),
		"TLS 1.2":        func() error { _, err := dial(tls.VersionTLS12, own); return err }(),
	} {
		if err == nil {
			t.Errorf("after the upgrade a client with %s is let in", what)
		}
	}
	for i := range 2 {
		d.stderr.awaitNth(t, "reason=handshake-failed", 1+i)
	}
	for _, c := range []*tls.Conn{stays, fresh} {
		if _, err := c.Write([]byte("again")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	if !running(d.cmd.Process.Pid) {
		t.Error("the old process has ended before its session")
	}
	if err := stays.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := stays.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the end of the old session: %d bytes, %v", n, err)
	}
	d.stderr.await(t, "msg=ended")
	if _, err := fresh.Write([]byte("still")); err != nil {
		t.Error(err)
	}
	_ = fresh.Close()
	d.stopLast(t)
}

// The service manager is told which process is the main one.
func TestUpgradeTellsTheServiceManager(t *testing.T) {
	testnet.Leaks(t)
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	hear := func() string {
		t.Helper()
		b := make([]byte, 1000)
		_ = manager.SetReadDeadline(time.Now().Add(patience))
		n, err := manager.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	d := runUpgradable(t, fmt.Sprintf("listeners:\n  echo: {address: 127.0.0.1:0, upstream: echo}\nupstreams:\n  echo: {servers: \"%s\"}\n", testnet.Echo(t, "tcp", "127.0.0.1:0")),
		"NOTIFY_SOCKET="+path)
	if got := hear(); got != "READY=1" {
		t.Errorf("told %q", got)
	}
	d.signal(syscall.SIGUSR2)
	d.stderr.awaitNth(t, "msg=started", 2)
	want := map[string]bool{fmt.Sprintf("MAINPID=%d", d.last()): true, "READY=1": true}
	for range 2 {
		if got := hear(); !want[got] {
			t.Errorf("told %q", got)
		}
	}
	d.stderr.await(t, "msg=ended")
	d.stopLast(t)
	if got := hear(); got != "STOPPING=1" {
		t.Errorf("told %q", got)
	}
}
