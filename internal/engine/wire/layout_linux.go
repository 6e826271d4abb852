package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/bpf"
)

// meaning is the version of what the fields of the pinned maps mean. Their names, kinds
// and places are part of the layout's name by themselves.
const meaning = 4

// layout names what is pinned. A program and a map of different layouts must not
// meet.
var layout = layoutOf(meaning, reflect.TypeFor[bpf.WireKey](), reflect.TypeFor[bpf.WireFlow](), reflect.TypeFor[bpf.WireOversize](), reflect.TypeFor[Meta]())

func layoutOf(version int, types ...reflect.Type) string {
	h := fnv.New32a()
	for _, t := range types {
		describe(h, "", t)
	}
	return fmt.Sprintf("v%d-%08x", version, h.Sum32())
}

// describe writes down where each field of a type is.
func describe(w io.Writer, name string, t reflect.Type) {
	fmt.Fprintln(w, name, t.Kind(), t.Size())
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			fmt.Fprint(w, f.Offset, " ")
			describe(w, f.Name, f.Type)
		}
	case reflect.Array:
		fmt.Fprint(w, t.Len(), " ")
		describe(w, "", t.Elem())
	}
}

const (
	// olderLook is the distance of looks at flows of older layouts.
	olderLook = 2 * time.Second
	// olderSilent is after how long without a packet such a flow counts as over: what
	// limits it has, only its own version could read.
	olderSilent = 24 * time.Hour
)

// An older is what a process of another version has left under the instance's name:
// its programs and maps go on by themselves, and are taken away when no flow needs
// them.
type older struct {
	dir   string
	lock  *os.File
	flows *ebpf.Map
	ports []bpf.WireKey
}

// openOlder finds the other layouts of the instance.
func (p *Plane) openOlder() (all []*older, err error) {
	defer func() {
		if err != nil {
			for _, o := range all {
				o.close()
			}
			all = nil
		}
	}()
	entries, err := os.ReadDir(filepath.Dir(p.dir))
	if err != nil {
		return nil, fmt.Errorf("read instance: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(filepath.Dir(p.dir), e.Name())
		if dir == p.dir || !e.IsDir() || !strings.HasPrefix(e.Name(), "v") {
			continue
		}
		o := &older{dir: dir}
		if o.lock, err = os.Open(dir); err != nil {
			return all, fmt.Errorf("open layout: %w", err)
		}
		if err := syscall.Flock(int(o.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = o.lock.Close()
			return all, fmt.Errorf("lock %s: %w", dir, ErrInUse)
		}
		all = append(all, o)
		if o.flows, err = ebpf.LoadPinnedMap(filepath.Join(dir, bpf.WireMapFlows), nil); errors.Is(err, os.ErrNotExist) {
			continue // begun and never used
		} else if err != nil {
			return all, fmt.Errorf("open flows of %s: %w", dir, err)
		}
		if o.flows.KeySize() != uint32(unsafe.Sizeof(bpf.WireKey{})) {
			continue
		}
		_ = o.each(func(k bpf.WireKey, _ *prefix) { o.ports = append(o.ports, k) })
	}
	return all, nil
}

// haveOlder keeps new connections off the ports of these flows. The plane is locked.
func (p *Plane) haveOlder(all []*older) {
	for _, o := range all {
		for _, k := range o.ports {
			p.ports.take(k.From(), k.To().Port())
		}
	}
	p.older = all
}

// A prefix is what the entries of all layouts begin with.
type prefix struct {
	state, verdict, over uint32
	lastSeen             int64
}

const prefixSize = 24

// each calls f for each entry.
func (o *older) each(f func(bpf.WireKey, *prefix)) error {
	if o.flows == nil {
		return nil
	}
	if o.flows.KeySize() != uint32(unsafe.Sizeof(bpf.WireKey{})) || o.flows.ValueSize() < prefixSize {
		return fmt.Errorf("%s: %w", o.dir, ebpf.ErrMapIncompatible)
	}
	var key bpf.WireKey
	var value []byte
	all := o.flows.Iterate()
	for all.Next(&key, &value) {
		at := func(i int) uint32 { return binary.NativeEndian.Uint32(value[i:]) }
		f(key, &prefix{at(4), at(8), at(12), int64(binary.NativeEndian.Uint64(value[16:]))})
	}
	return all.Err()
}

// live counts the flows that are not over.
func (o *older) live(now time.Duration) (n int, err error) {
	err = o.each(func(_ bpf.WireKey, f *prefix) {
		if f.state == bpf.WireSpliced && f.verdict == 0 && f.over == 0 && now-time.Duration(f.lastSeen) < olderSilent {
			n++
		}
	})
	return n, err
}

// leaveOlder undoes haveOlder. The plane is locked.
func (p *Plane) leaveOlder() {
	for _, o := range p.older {
		p.forgetOlder(o)
	}
	p.older = nil
}

func (p *Plane) forgetOlder(o *older) {
	for _, k := range o.ports {
		p.ports.leave(k.From(), k.To().Port())
	}
	o.close()
}

// drainOlder takes the layouts away whose flows are over.
func (p *Plane) drainOlder(now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.older[:0]
	for _, o := range p.older {
		// What can't be read is left to flows --purge.
		if n, err := o.live(now); err != nil || n > 0 {
			kept = append(kept, o)
			continue
		}
		_ = os.RemoveAll(o.dir) // unpins links and maps: the programs go with them
		p.forgetOlder(o)
	}
	p.older = kept
}

func (o *older) close() {
	if o.flows != nil {
		_ = o.flows.Close()
	}
	_ = o.lock.Close()
}
