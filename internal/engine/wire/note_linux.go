package wire

import (
	"os"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/bpf"
)

const notesName = "notes"

// A note is what the owner of a spliced pair says to whoever adopts it. Notes are beside the layout: a
// process that knows of none, or of others, shares the rest, and without its note a pair is adopted
// all the same.
type note struct {
	Started int64 // of the pair's Meta; else a process that knew of no notes has left it behind
	Size    uint32
	Text    [NoteSize]byte
	Pad     [4]byte
}

func notesSpec(entries uint32) *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: notesName, Type: ebpf.Hash, Flags: 1, // BPF_F_NO_PREALLOC
		KeySize: uint32(unsafe.Sizeof(bpf.WireKey{})), ValueSize: uint32(unsafe.Sizeof(note{})),
		MaxEntries: entries,
	}
}

// openNotes opens the map of an instance, or makes it, also in the place of one that this process
// can't read. nil: there is to be none.
func (p *Plane) openNotes(entries uint32) *ebpf.Map {
	m, err := p.pinnedMap(notesSpec(entries))
	if err != nil && os.Remove(filepath.Join(p.dir, notesName)) == nil {
		m, err = p.pinnedMap(notesSpec(entries))
	}
	if err != nil {
		return nil
	}
	return m
}

// loadNotes opens the map of an instance for others than its process. nil: there are none that
// can be read.
func loadNotes(dir string) *ebpf.Map {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, notesName), nil)
	if err != nil {
		return nil
	}
	if notesSpec(m.MaxEntries()).Compatible(m) != nil {
		_ = m.Close()
		return nil
	}
	return m
}

// note leaves a text for a successor of this process; one that is too long is none.
func (pair *Pair) note(started int64, text string) {
	if pair.plane.notes == nil || text == "" || len(text) > NoteSize {
		return
	}
	n := note{Started: started, Size: uint32(len(text))}
	copy(n.Text[:], text)
	_ = pair.plane.notes.Put(&pair.keys[0], &n) // a full table: then nothing is said
}

// noteOf is what was said of the pair that has this entry, and Meta of that start.
func (p *Plane) noteOf(key *bpf.WireKey, started int64) string {
	var n note
	if p.notes == nil || p.notes.Lookup(key, &n) != nil || n.Started != started || n.Size > NoteSize {
		return ""
	}
	return string(n.Text[:n.Size])
}

// unrecord forgets what was left for a successor. ENOENT: nothing was.
func (p *Plane) unrecord(key *bpf.WireKey) {
	if p.meta != nil {
		_ = p.meta.Delete(key)
	}
	if p.notes != nil {
		_ = p.notes.Delete(key)
	}
}

// takeOutNotes takes out those of pairs that are not there any more. The plane is locked.
func (p *Plane) takeOutNotes(known map[bpf.WireKey]bool) {
	if p.notes == nil {
		return
	}
	var stale []bpf.WireKey
	var key bpf.WireKey
	var n note
	for all := p.notes.Iterate(); all.Next(&key, &n); {
		if !known[key] && p.pairs[key] == nil {
			stale = append(stale, key)
		}
	}
	for i := range stale {
		_ = p.notes.Delete(&stale[i])
	}
}
