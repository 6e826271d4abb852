package engine_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// Transfers go on when the relay is killed; the next one takes them over.
func TestWireSurvivesKill(t *testing.T) {
	c := wireChain(t)
	root := testnet.BPFFS(t)
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

// splicedPings connects n clients to a relay and pings until all are spliced.
func splicedPings(t *testing.T, c *testnet.Chain, r *relay, n int) (conns []*net.TCPConn, bytes []int64) {
	t.Helper()
	before := r.spliced(t)
	for range n {
		conns = append(conns, dialRelay(t, c.A, r))
	}
	bytes = make([]int64, n)
	for end := time.Now().Add(wirePatience); r.spliced(t) < before+n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not handed over")
		}
		for i, conn := range conns {
			ping(t, conn, 0)
			bytes[i] += 64
		}
	}
	// A hand-over ends a moment after the switch.
	time.Sleep(100 * time.Millisecond)
	return conns, bytes
}

// What ends while no process has the instance: the program alone keeps it from
// disturbing anybody, and the next process says how it ended, and takes it away.
func TestWireEndsAlone(t *testing.T) {
	c := wireChain(t)
	root := testnet.BPFFS(t)
	server := serve(t, c.C, testnet.AddrC, echo64)
	config := wire.Config{Instance: "test", Root: root}
	spec := relaySpec{
		Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire),
		Limits: engine.Limits{Idle: 500 * time.Millisecond}, Policy: engine.WirePolicy{Instance: "test", Root: root},
	}
	r := startRelay(t, c.B, spec)
	r.adopted(t)
	conns, bytes := splicedPings(t, c, r, 3)
	r.kill(t)
	closed, reset, silent := conns[0], conns[1], conns[2]
	if err := closed.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := closed.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("%d bytes, %v, want the end", n, err)
	}
	_ = reset.SetLinger(0)
	reset.Close()
	r = startRelay(t, c.B, spec)
	if n := r.adopted(t); n != 3 {
		t.Fatalf("adopted %d, want 3", n)
	}
	ends := make(map[string]relayResult)
	for range conns {
		res := r.result(t)
		ends[res.Client] = res
	}
	for i, want := range []string{"eof", "reset-by-source", "idle"} {
		res := ends[conns[i].LocalAddr().String()]
		if res.ReasonA != want || res.AToB != bytes[i] {
			t.Errorf("connection %d: %+v, want %s after %d bytes", i, res, want, bytes[i])
		}
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("a connection without traffic goes on beyond its idle limit")
	}
	// Entries linger for a second.
	for end := time.Now().Add(wirePatience); ; time.Sleep(20 * time.Millisecond) {
		table, err := wire.OpenTable(config)
		if err != nil {
			t.Fatal(err)
		}
		flows, err := table.Flows()
		table.Close()
		if err == nil && len(flows) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("entries stay: %d, %v", len(flows), err)
		}
	}
	r.end()
	if err := wire.Purge(config); err != nil {
		t.Error(err)
	}
}

// Flows of another layout go on beside those of this one, until they end: then
// what was pinned for them goes.
func TestWireOlderLayout(t *testing.T) {
	c := wireChain(t)
	root := testnet.BPFFS(t)
	server := serve(t, c.C, testnet.AddrC, echo64)
	config := wire.Config{Instance: "test", Root: root}
	spec := relaySpec{
		Listen: testnet.AddrBA + ":0", Target: server, Kind: uint8(engine.Wire),
		Policy: engine.WirePolicy{Instance: "test", Root: root},
	}
	r := startRelay(t, c.B, spec)
	r.adopted(t)
	old, _ := splicedPings(t, c, r, 2)
	r.kill(t)
	dir := filepath.Join(root, "test")
	layouts, err := os.ReadDir(dir)
	if err != nil || len(layouts) != 1 {
		t.Fatal(layouts, err)
	}
	older := filepath.Join(dir, "v0-older")
	if err := os.Rename(filepath.Join(dir, layouts[0].Name()), older); err != nil {
		t.Fatal(err)
	}
	r = startRelay(t, c.B, spec)
	if n := r.adopted(t); n != 0 {
		t.Fatalf("adopted %d flows of another layout", n)
	}
	fresh, bytes := splicedPings(t, c, r, 2)
	for range 3 {
		for _, conn := range old {
			ping(t, conn, 0)
		}
		time.Sleep(time.Second) // longer than it takes to look for what is over
	}
	if _, err := os.Stat(older); err != nil {
		t.Fatalf("an older layout with live flows: %v", err)
	}
	for i, conn := range old {
		_ = conn.CloseWrite()
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("old connection %d: %v, want the end", i, err)
		}
	}
	for end := time.Now().Add(wirePatience); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(older); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("an older layout stays when its flows are over")
		}
	}
	for i, conn := range fresh {
		ping(t, conn, 0)
		_ = conn.CloseWrite()
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("connection %d: %v, want the end", i, err)
		}
		wantEOF(t, r.result(t), bytes[i]+64, bytes[i]+64)
	}
	r.end()
	if err := wire.Purge(config); err != nil {
		t.Error(err)
	}
}
