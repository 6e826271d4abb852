package wire_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// What was said of a pair comes with it, also to who only looks; and where it is missing, of another size
// or nonsense the pair is adopted all the same.
func TestNotes(t *testing.T) {
	c := newChain(t)
	root := testnet.BPFFS(t)
	config := wire.Config{Instance: "test", Root: root}
	b := places()[0].open(t, c)
	p := openPlane(t, c, config)
	pair := consider(t, c, p, b, func() {})
	switchIdle(t, pair)
	drained(t, pair)
	const said = "of listener web, and server c"
	if err := pair.Settle(wire.Meta{Started: 42}, said); err != nil {
		t.Fatal(err)
	}
	pair.Dissolve()
	both(t, b)
	p.Close()

	path, _ := filepath.Glob(filepath.Join(root, "test", "*", "notes"))
	if len(path) != 1 {
		t.Fatalf("notes are at %q", path)
	}
	// alter changes the one note that there is.
	alter := func(f func(value []byte)) func(t *testing.T) {
		return func(t *testing.T) {
			m, err := ebpf.LoadPinnedMap(path[0], nil)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			var key, value []byte
			all := m.Iterate()
			if !all.Next(&key, &value) {
				t.Fatal("there is no note")
			}
			f(value)
			if err := m.Put(key, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	// replace pins something else where the notes are, or nothing.
	replace := func(spec *ebpf.MapSpec) func(t *testing.T) {
		return func(t *testing.T) {
			if err := os.Remove(path[0]); err != nil {
				t.Fatal(err)
			}
			if spec == nil {
				return
			}
			m, err := ebpf.NewMap(spec)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if err := m.Pin(path[0]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		before func(t *testing.T)
		want   string
	}{
		{"as it was left", func(*testing.T) {}, said},
		{"longer than it can be", alter(func(v []byte) { v[11] = 0xff; v[8] = 0xff }), ""},
		{"of all bytes", alter(func(v []byte) { v[8], v[9], v[10], v[11] = 5, 0, 0, 0; copy(v[12:], "\xff\x00\n\x1b[") }), "\xff\x00\n\x1b["},
		{"of a pair that was there before", alter(func(v []byte) { v[0]++ }), ""},
		{"of another size", replace(&ebpf.MapSpec{Name: "notes", Type: ebpf.Hash, KeySize: 36, ValueSize: 8, MaxEntries: 8}), ""},
		{"another kind of map", replace(&ebpf.MapSpec{Name: "notes", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}), ""},
		{"of a version that knew none", replace(nil), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.before(t)
			table, err := wire.OpenTable(config)
			if err != nil {
				t.Fatal(err)
			}
			seen, err := table.Flows()
			table.Close()
			if err != nil || len(seen) != 1 || seen[0].Note != tc.want {
				t.Errorf("who looks finds %+v, %v", seen, err)
			}
			p := openPlane(t, c, config)
			defer p.Close()
			left, err := p.Adopt(func(*wire.Pair) func() { return func() {} }, false, nil)
			if err != nil || len(left) != 1 {
				t.Fatalf("adopted %d, %v", len(left), err)
			}
			if left[0].Note != tc.want {
				t.Errorf("its note is %q, want %q", left[0].Note, tc.want)
			}
			both(t, b)
		})
	}

	// There is a map for the next ones. One that is too long is none; and with the pair its note goes.
	p = openPlane(t, c, config)
	defer p.Close()
	left, err := p.Adopt(func(*wire.Pair) func() { return func() {} }, false, nil)
	if err != nil || len(left) != 1 {
		t.Fatalf("adopted %d, %v", len(left), err)
	}
	notes := func() (n int) {
		m, err := ebpf.LoadPinnedMap(path[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		var key, value []byte
		for all := m.Iterate(); all.Next(&key, &value); {
			n++
		}
		return n
	}
	another := places()[0].open(t, c)
	pair = consider(t, c, p, another, func() {})
	switchIdle(t, pair)
	drained(t, pair)
	for _, note := range []string{strings.Repeat("x", wire.NoteSize+1), ""} {
		if err := pair.Settle(wire.Meta{Started: 43}, note); err != nil {
			t.Fatal(err)
		}
		if n := notes(); n != 0 {
			t.Errorf("%d notes after one of %d bytes", n, len(note))
		}
	}
	if err := pair.Settle(wire.Meta{Started: 43}, strings.Repeat("x", wire.NoteSize)); err != nil {
		t.Fatal(err)
	}
	if n := notes(); n != 1 {
		t.Errorf("%d notes of a pair", n)
	}
	pair.Dissolve()
	pair.Abort()
	left[0].Abort()
	if n := notes(); n != 0 {
		t.Errorf("%d notes are left of no pair", n)
	}
}
