package wire_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// refused wants a pair of sockets to be refused for a reason.
func refused(t *testing.T, c *testnet.Chain, p *wire.Plane, a, b int, want wire.Refusal) {
	t.Helper()
	var why wire.Refusal
	eventually(t, "attached", func() bool {
		var err error
		_ = c.B.Do(func() error {
			_, why, err = p.Consider(a, b, func() {})
			return nil
		})
		return !errors.Is(err, wire.ErrPending)
	})
	if why != want {
		t.Fatalf("refused: %d, want %d", why, want)
	}
}

func twoBenches(t *testing.T, c *testnet.Chain) (first, second *bench) {
	t.Helper()
	pl := places()[0]
	return pl.open(t, c), pl.open(t, c)
}

// A table that is full takes no other pair, and keeps what it has.
func TestFull(t *testing.T) {
	c := newChain(t)
	root := testnet.BPFFS(t)
	for _, tc := range []struct {
		name    string
		entries uint32 // 3: one of the second pair's fits
	}{{"full", 2}, {"half-fits", 3}} {
		t.Run(tc.name, func(t *testing.T) {
			first, second := twoBenches(t, c)
			// Of an instance: it stays without a pair.
			p := openPlane(t, c, wire.Config{Instance: tc.name, Root: root, Entries: tc.entries})
			pair := consider(t, c, p, first, func() {})
			for range 3 { // each leaves nothing behind
				refused(t, c, p, fd(t, second.a), fd(t, second.b), wire.Full)
			}
			if !pair.Seen() {
				t.Error("the first pair was evicted")
			}
			pair.Withdraw()
			other := consider(t, c, p, second, func() {})
			other.Withdraw()
		})
	}
}

// Sockets that may have the addresses of others stay what they are.
func TestTransparentSockets(t *testing.T) {
	c := newChain(t)
	first, _ := twoBenches(t, c)
	p := openPlane(t, c, wire.Config{Instance: "transparent", Root: testnet.BPFFS(t)})
	a, b := fd(t, first.a), fd(t, first.b)
	if err := sys.SetTransparent(b); err != nil {
		t.Fatal(err)
	}
	refused(t, c, p, a, b, wire.Transparent)
	refused(t, c, p, b, a, wire.Transparent)
}

// Pairs that are refused keep the program too: to load it for each of them anew takes a good part of a processor. It ends when nobody
// asks any more.
func TestRefusedKeepPlane(t *testing.T) {
	c := newChain(t)
	first, _ := twoBenches(t, c)
	p := openPlane(t, c, wire.Config{})
	a, b := fd(t, first.a), fd(t, first.b)
	if err := sys.SetTransparent(b); err != nil {
		t.Fatal(err)
	}
	// Longer than it stays without a pair.
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_, why, err := p.Consider(a, b, func() {})
		if why != wire.Transparent || err != nil {
			t.Fatalf("refused: %d, %v, want %d", why, err, wire.Transparent)
		}
	}
	eventually(t, "it ends", func() bool { return !p.Alive() })
}

// Sockets that have a route of their own stay what they are: packets would lose it.
func TestOwnRoute(t *testing.T) {
	c := newChain(t)
	first, _ := twoBenches(t, c)
	p := openPlane(t, c, wire.Config{Instance: "own-route", Root: testnet.BPFFS(t)})
	a, b := fd(t, first.a), fd(t, first.b)
	bind := func(link string) {
		t.Helper()
		if err := c.B.Do(func() error { return syscall.BindToDevice(b, link) }); err != nil {
			t.Fatal(err)
		}
	}
	mark := func(n int) {
		t.Helper()
		if err := syscall.SetsockoptInt(b, syscall.SOL_SOCKET, syscall.SO_MARK, n); err != nil {
			t.Fatal(err)
		}
	}
	mark(7)
	refused(t, c, p, a, b, wire.OwnRoute)
	refused(t, c, p, b, a, wire.OwnRoute)
	mark(0)
	bind(testnet.LinkBA) // which leads to the other side
	refused(t, c, p, a, b, wire.OwnRoute)
	bind(testnet.LinkBC)
	pair := consider(t, c, p, first, func() {})
	handOver(t, pair)
	carry(t, first.client, first.server, 100_000)
	carry(t, first.server, first.client, 100_000)
	pair.Abort()
}

// A connection that is part of a pair is not taken into another one.
func TestConflict(t *testing.T) {
	c := newChain(t)
	first, second := twoBenches(t, c)
	p := openPlane(t, c, wire.Config{Instance: "conflict", Root: testnet.BPFFS(t)})
	pair := consider(t, c, p, first, func() {})
	refused(t, c, p, fd(t, first.a), fd(t, first.b), wire.Conflict)
	refused(t, c, p, fd(t, second.a), fd(t, first.b), wire.Conflict)
	other := consider(t, c, p, second, func() {}) // the entry of its a was not left behind
	handOver(t, pair)
	handOver(t, other)
	for _, b := range []*bench{first, second} {
		carry(t, b.client, b.server, 100_000)
		carry(t, b.server, b.client, 100_000)
	}
	pair.Abort()
	other.Abort()
}

// What is pinned under the name and is not of this layout is refused, never used or
// changed. Another instance is not disturbed.
func TestForeignPins(t *testing.T) {
	c := newChain(t)
	root := testnet.BPFFS(t)
	mine := wire.Config{Instance: "mine", Root: root}
	openPlane(t, c, mine).Close()
	dirs, err := filepath.Glob(filepath.Join(root, "mine", "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatal(dirs, err)
	}
	layout := filepath.Base(dirs[0])
	good, err := ebpf.LoadPinnedMap(filepath.Join(dirs[0], "flows"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	hash := ebpf.MapSpec{
		Type: ebpf.Hash, Flags: good.Flags(),
		KeySize: good.KeySize(), ValueSize: good.ValueSize(), MaxEntries: good.MaxEntries(),
	}
	for _, tc := range []struct {
		name, pin string
		change    func(*ebpf.MapSpec)
	}{
		{"value", "flows", func(s *ebpf.MapSpec) { s.ValueSize += 8 }},
		{"key", "flows", func(s *ebpf.MapSpec) { s.KeySize += 4 }},
		{"size", "flows", func(s *ebpf.MapSpec) { s.MaxEntries /= 2 }},
		{"type", "flows", func(s *ebpf.MapSpec) { s.Type, s.Flags = ebpf.LRUHash, 0 }},
		{"meta", "meta", func(s *ebpf.MapSpec) { s.ValueSize = 8; s.MaxEntries /= 2 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := wire.Config{Instance: "foreign-" + tc.name, Root: root}
			dir := filepath.Join(root, config.Instance, layout)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			spec := hash
			tc.change(&spec)
			m, err := ebpf.NewMap(&spec)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			path := filepath.Join(dir, tc.pin)
			if err := m.Pin(path); err != nil {
				t.Fatal(err)
			}
			key, value := make([]byte, spec.KeySize), make([]byte, spec.ValueSize)
			if err := m.Put(key, value); err != nil {
				t.Fatal(err)
			}
			err = c.B.Do(func() error {
				p, err := wire.Open(config)
				if err == nil {
					p.Close()
				}
				return err
			})
			if !errors.Is(err, ebpf.ErrMapIncompatible) || !strings.Contains(err.Error(), path) {
				t.Errorf("opened: %v, want one that names %s", err, path)
			}
			if err := m.Lookup(key, &value); err != nil {
				t.Errorf("the foreign map was changed: %v", err)
			}
			openPlane(t, c, mine).Close()
			if err := wire.Purge(config); err != nil {
				t.Error(err)
			}
		})
	}
	if err := wire.Purge(mine); err != nil {
		t.Error(err)
	}
}

// Pairs may stand in a row, one's packets being the next one's; the one that would
// close a ring is refused: packets would go round for ever.
func TestRing(t *testing.T) {
	c := newChain(t)
	p := openPlane(t, c, wire.Config{Instance: "ring", Root: testnet.BPFFS(t)})
	local := place{"", onB, onB, "127.0.0.1", "127.0.0.1"}
	first, second := local.open(t, c), local.open(t, c)
	row := []*bench{first, {a: first.server, b: second.client}, second}
	for i, b := range row {
		pair := consider(t, c, p, b, func() {})
		defer pair.Withdraw()
		if i == 0 {
			refused(t, c, p, fd(t, first.client), fd(t, first.server), wire.Conflict)
			refused(t, c, p, fd(t, first.server), fd(t, first.client), wire.Conflict)
		}
	}
	refused(t, c, p, fd(t, first.client), fd(t, second.server), wire.Conflict)
	refused(t, c, p, fd(t, second.server), fd(t, first.client), wire.Conflict)
}
