package engine_test

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// bpffs mounts a BPF file system for the test.
func bpffs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := sys.MountBPF(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sys.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Transfers go on when the relay is killed; the next one takes them over.
func TestWireSurvivesKill(t *testing.T) {
	c := wireChain(t)
	root := bpffs(t)
	const (
		flows = 50
		half  = 2 << 20
	)
	goOn := make(chan struct{})
	server := serve(t, c.C, testnet.AddrC, func(conn *net.TCPConn) {
		src := rand.NewChaCha8([32]byte{})
		if _, err := io.CopyN(conn, src, half); err != nil {
			return
		}
		<-goOn
		_, _ = io.CopyN(conn, src, half)
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	})
	spec := relaySpec{
		Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire),
		Limits: engine.Limits{Idle: time.Minute},
		Policy: engine.WirePolicy{Instance: "test", Root: root},
	}
	r := startRelay(t, c.B, spec)
	if n := r.adopted(t); n != 0 {
		t.Fatalf("adopted %d flows of nobody", n)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	sums := make(map[string]int)
	for range flows {
		conn := dialRelay(t, c.A, r)
		wg.Go(func() {
			h := sha256.New()
			n, err := io.Copy(h, conn)
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			if err != nil || n != 2*half {
				t.Errorf("%d bytes of %d, %v", n, 2*half, err)
			}
			sums[string(h.Sum(nil))]++
		})
	}
	deadline := time.Now().Add(wirePatience)
	for n := r.spliced(t); n < flows; n = r.spliced(t) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d were handed over", n)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if second, err := engineOpen(c.B, wire.Config{Instance: "test", Root: root}); err == nil {
		second.Close()
		t.Error("two processes have the instance")
	}
	// A hand-over ends a moment after the switch.
	time.Sleep(100 * time.Millisecond)
	r.kill(t)
	close(goOn)
	r = startRelay(t, c.B, spec)
	if n := r.adopted(t); n != flows {
		t.Fatalf("adopted %d, want %d", n, flows)
	}
	wg.Wait()
	if len(sums) != 1 {
		t.Error("bytes differ")
	}
	for range flows {
		wantEOF(t, r.result(t), 0, 2*half)
	}
	r.end()
	if err := wire.Purge(wire.Config{Instance: "test", Root: root}); err != nil {
		t.Error(err)
	}
	if left, err := wire.Instances(root); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

func engineOpen(ns *testnet.Namespace, config wire.Config) (p *wire.Plane, err error) {
	err = ns.Do(func() error {
		p, err = wire.Open(config)
		return err
	})
	return p, err
}
