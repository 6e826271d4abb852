package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// A reload that waits for a file of a disk that does not answer keeps nobody waiting: operators,
// clients, an upgrade, or the end. The other reload that was asked for has its turn afterwards, and
// who has asked is answered.
func TestReloadFromADeadDisk(t *testing.T) {
	// Where the file is, and what the configuration says of it while it is alive and dead.
	onDisk := func(t *testing.T) (alive, dead string, die, revive func()) {
		testnet.Need(t, "root")
		dir, revive := testnet.DeadDisk(t)
		return "", "include: " + dir + "/more.yaml\n", func() {}, revive
	}
	fifo := func(t *testing.T) (alive, dead string, die, revive func()) {
		dir := t.TempDir()
		key, certificate := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
		private, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: selfSigned(t, "a.example", private)}, key: {Type: "PRIVATE KEY", Bytes: der}} {
			if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		listener := fmt.Sprintf("  tls: {address: 127.0.0.1:0, upstream: echo, tls: {certificates: {certificate: %s, key: %s}}}\n", certificate, key)
		var writer *os.File
		t.Cleanup(func() {
			if writer != nil {
				_ = writer.Close()
			}
		})
		return listener, listener, func() { // nobody writes to it: whoever opens it waits
				if err := errors.Join(os.Remove(certificate), syscall.Mkfifo(certificate, 0o600)); err != nil {
					t.Fatal(err)
				}
			}, func() {
				f, err := os.OpenFile(certificate, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				writer = f
				_, _ = f.WriteString("nonsense")
				_ = os.Remove(certificate)
				_ = f.Close()
			}
	}
	for _, where := range []struct {
		name string
		make func(*testing.T) (alive, dead string, die, revive func())
	}{{"file system", onDisk}, {"FIFO", fifo}} {
		for _, what := range []string{"ends", "is upgraded", "goes on"} {
			t.Run(where.name+" and the daemon "+what, func(t *testing.T) {
				testnet.Leaks(t)
				alive, dead, die, revive := where.make(t)
				socket := "unix:" + filepath.Join(t.TempDir(), "admin.sock")
				text := fmt.Sprintf("admin: %s\nupstreams:\n  echo: {servers: %q}\nlisteners:\n  echo: {address: 127.0.0.1:0, upstream: echo}\n", socket, testnet.Echo(t, "tcp", "127.0.0.1:0"))
				d := runUpgradable(t, text+alive)
				d.write(t, text+dead)
				die()
				d.signal(syscall.SIGHUP)
				type answer struct {
					text string
					code int
				}
				reloaded := make(chan answer, 1)
				go func() {
					_, stderr, code := execute(t, "reload", "--admin", socket)
					reloaded <- answer{stderr, code}
				}()
				answers := func() {
					t.Helper()
					if _, stderr, code := execute(t, "ctl", "status", "--admin", socket); code != exitOK {
						t.Errorf("status: %d, %s", code, stderr)
					}
					k, err := startTalk(d.addr(t, "echo"))
					if err == nil {
						if err = k.say([]byte("hello")); err == nil {
							err = k.end()
						}
					}
					if err != nil {
						t.Error(err)
					}
				}
				answers()
				select {
				case a := <-reloaded:
					t.Errorf("a reload is done: %+v", a)
					reloaded <- a
				default:
				}
				want := exitFailed
				switch what {
				case "ends":
					d.signal(syscall.SIGTERM)
					if code := d.wait(); code != exitOK {
						t.Errorf("exit code %d", code)
					}
					want = -1 // the answer may not have reached it
				case "is upgraded":
					d.write(t, text)
					d.signal(syscall.SIGUSR2)
					d.stderr.await(t, "connections taken over")
					d.stderr.await(t, "msg=ended")
					answers()
					want = -1
				case "goes on":
					revive()
					d.stderr.awaitNth(t, "reload refused", 2)
					answers()
				}
				if a := <-reloaded; a.code == exitOK || want >= 0 && a.code != want {
					t.Errorf("the reload: %+v", a)
				}
				if what == "goes on" {
					d.write(t, text)
					if _, stderr, code := execute(t, "reload", "--admin", socket); code != exitOK {
						t.Errorf("the next reload: %d, %s", code, stderr)
					}
				}
				if what != "ends" {
					d.stopLast(t)
				}
			})
		}
	}
}

// One at a time; who waits gives up alone, and one that hangs is given up, and keeps others from
// hanging too until it has come back.
func TestReloadsHang(t *testing.T) {
	testnet.Leaks(t)
	var begun atomic.Int32
	back := make(chan error)
	changed := false
	r := newReloads(func(ctx context.Context) error {
		begun.Add(1)
		err := <-back
		changed = ctx.Err() == nil
		return err
	})
	first := make(chan error, 1)
	go func() { first <- r.run(t.Context()) }()
	eventually(t, func() error {
		if begun.Load() != 1 {
			return errors.New("not begun")
		}
		return nil
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnding)
	if err := r.run(ctx); err != errEnding || begun.Load() != 1 {
		t.Errorf("one that waits and gives up: %v, %d begun", err, begun.Load())
	}
	wrong := errors.New("wrong")
	back <- wrong
	if err := <-first; err != wrong || !changed {
		t.Errorf("the first: %v", err)
	}
	r.patience = 10 * time.Millisecond
	if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), "not read within 10ms") {
		t.Errorf("one that hangs: %v", err)
	}
	r.patience = reloadPatience
	if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), "waits for a file yet") || begun.Load() != 2 {
		t.Errorf("the next one: %v, %d begun", err, begun.Load())
	}
	back <- nil // too late
	go func() { back <- nil }()
	eventually(t, func() error { return r.run(t.Context()) })
	if !changed || begun.Load() != 3 {
		t.Errorf("the last one: %d begun", begun.Load())
	}
}
