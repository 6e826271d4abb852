package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// DefaultRoot is where instances are pinned.
const DefaultRoot = "/sys/fs/bpf/spliced"

const (
	mountPoint = "/sys/fs/bpf"
	metaName   = "meta"
)

// Meta is what a process leaves about a spliced pair for its successor.
type Meta struct {
	B         bpf.WireKey // of b's packets; the entry's own key is a's
	Pad       uint32
	Base      [2]int64 // bytes delivered before the hand-over, a's and b's
	Started   int64    // Unix time in nanoseconds
	Closed    int64    // for so many nanoseconds the windows were closed, to bring the pair to rest
	Idle      int64    // limits, in nanoseconds
	HalfClose int64
	Lifetime  int64
	Max       [2]int64 // bytes of a and of b that may cross, those of before included; 0 is any number
	Legs      [2]MetaLeg
}

// A MetaLeg is what it takes to make a socket of one of the connections again.
type MetaLeg struct {
	MSS                              uint16 // as the peer announced it
	Options, SendScale, ReceiveScale uint8
	Pad                              [3]uint8
}

// A leg's part of what is left for a successor.
func (l *leg) meta() MetaLeg {
	return MetaLeg{
		MSS: uint16(min(l.peerMSS, 65535)), Options: l.info.Options,
		SendScale: l.info.SendScale, ReceiveScale: l.info.ReceiveScale,
	}
}

func metaSpec(entries uint32) *ebpf.MapSpec {
	return &ebpf.MapSpec{
		Name: metaName, Type: ebpf.Hash, Flags: 1, // BPF_F_NO_PREALLOC
		KeySize: uint32(unsafe.Sizeof(bpf.WireKey{})), ValueSize: uint32(unsafe.Sizeof(Meta{})),
		MaxEntries: entries,
	}
}

func (c Config) root() string {
	if c.Root != "" {
		return c.Root
	}
	return DefaultRoot
}

func (c Config) dir() (string, error) {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`).MatchString(c.Instance) {
		return "", fmt.Errorf("instance %q: want letters, digits, - and _: %w", c.Instance, syscall.EINVAL)
	}
	return filepath.Join(c.root(), c.Instance, layout), nil
}

var errNoBPF = errors.New("not a BPF file system")

// onBPF says whether a directory is, or would be, in a BPF file system.
func onBPF(dir string) bool {
	for up := filepath.Dir(dir); up != dir; dir, up = up, filepath.Dir(up) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
	}
	return sys.IsBPF(dir)
}

// openPinned makes or finds the instance's directory and maps, and locks them unless
// another process may have them.
func (p *Plane) openPinned(spec *ebpf.CollectionSpec, lock bool) (_ map[string]*ebpf.Map, err error) {
	if p.dir, err = p.config.dir(); err != nil {
		return nil, err
	}
	if p.config.Root == "" && !sys.IsBPF(mountPoint) {
		if err := sys.MountBPF(mountPoint); err != nil {
			return nil, fmt.Errorf("mount a BPF file system on %s: %w", mountPoint, err)
		}
	}
	if !onBPF(p.dir) {
		return nil, fmt.Errorf("make instance in %s: %w", p.config.root(), errNoBPF)
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make instance: %w", err)
	}
	if p.lock, err = os.Open(p.dir); err != nil {
		return nil, fmt.Errorf("open instance: %w", err)
	}
	if lock {
		if err := p.take(); err != nil {
			return nil, err
		}
	}
	maps := make(map[string]*ebpf.Map)
	defer func() {
		if err != nil {
			for _, m := range maps {
				_ = m.Close()
			}
		}
	}()
	flows := spec.Maps[bpf.WireMapFlows]
	for _, s := range []*ebpf.MapSpec{flows, spec.Maps[bpf.WireMapEnded]} {
		if maps[s.Name], err = p.pinnedMap(s); err != nil {
			return nil, err
		}
	}
	if p.meta, err = p.pinnedMap(metaSpec(flows.MaxEntries / 2)); err != nil {
		return nil, err
	}
	p.notes = p.openNotes(flows.MaxEntries / 2)
	return maps, nil
}

// take locks the instance for this process.
func (p *Plane) take() error {
	if err := syscall.Flock(int(p.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w", p.dir, ErrInUse)
	}
	return nil
}

// pinnedMap opens a map, or makes it.
func (p *Plane) pinnedMap(spec *ebpf.MapSpec) (*ebpf.Map, error) {
	path := filepath.Join(p.dir, spec.Name)
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err == nil {
		if err := spec.Compatible(m); err != nil {
			_ = m.Close()
			return nil, fmt.Errorf("use map %s: %w", path, err)
		}
		return m, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open map %s: %w", path, err)
	}
	if m, err = ebpf.NewMap(spec); err != nil {
		return nil, fmt.Errorf("make map %s: %w", spec.Name, err)
	}
	if err := m.Pin(path); err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("pin map: %w", err)
	}
	return m, nil
}

// takeLinks puts this process's program in the place of its predecessor's.
// Packets meet the one or the other.
func (p *Plane) takeLinks() (_ map[hook]link.Link, err error) {
	links := make(map[hook]link.Link)
	defer func() {
		if err != nil {
			closeLinks(links)
		}
	}()
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, fmt.Errorf("read instance: %w", err)
	}
	for _, e := range entries {
		h, ok := hookOf(e.Name())
		if !ok {
			continue
		}
		path := filepath.Join(p.dir, e.Name())
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return nil, fmt.Errorf("open link %s: %w", path, err)
		}
		if err := l.Update(p.program(h)); err != nil {
			// ENOLINK: the interface is gone.
			_ = l.Close()
			_ = os.Remove(path)
			continue
		}
		links[h] = l
	}
	return links, nil
}

// closeLinks closes them, and forgets them.
func closeLinks(links map[hook]link.Link) {
	for h, l := range links {
		_ = l.Close()
		delete(links, h)
	}
}

// Record leaves a spliced pair for a successor of this process.
func (pair *Pair) Record(m Meta) error {
	if pair.plane.meta == nil {
		return nil
	}
	m.B = pair.keys[1]
	for i := range pair.legs {
		m.Legs[i] = pair.legs[i].meta()
	}
	if err := pair.plane.meta.Put(&pair.keys[0], &m); err != nil {
		return fmt.Errorf("record the flow: %w", err)
	}
	return nil
}

// An Adopted pair was spliced by another process.
type Adopted struct {
	*Pair
	Meta Meta
	Note string // "": none
}

// Adopt returns the pairs that an earlier process of this instance has left and that are not
// this plane's already: as if Consider had been asked for them. What that process had begun, and
// not spliced, is taken out, unless it lives: then except has the pairs that are its own
// yet, and nothing is taken out. The plane is to be held.
func (p *Plane) Adopt(news func(*Pair) func(), lives bool, except []Flow) ([]Adopted, error) {
	if !p.kept {
		return nil, nil
	}
	not := make(map[Flow]bool, len(except))
	for _, f := range except {
		not[f] = true
	}
	var all []Adopted
	var stale []bpf.WireKey
	known := make(map[bpf.WireKey]bool)
	metas, err := p.metas()
	if err != nil {
		return nil, fmt.Errorf("read the flows left: %w", err)
	}
	for key, m := range metas {
		pair := &Pair{plane: p, keys: [2]bpf.WireKey{key, m.B}, Room: [2]int64{-1, -1}}
		if not[pair.Flow()] || p.has(&key) {
			known[key], known[m.B] = true, true
			continue
		}
		pair.restore(&m)
		v, err := pair.Look()
		if err != nil || !pair.Spliced() {
			stale = append(stale, key)
			continue
		}
		pair.place(&v)
		known[key], known[m.B] = true, true
		all = append(all, Adopted{pair, m, p.noteOf(&key, m.Started)})
	}
	if !lives {
		if err := p.takeOutStale(stale, known); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range all {
		a.news = news(a.Pair)
		p.users++
		p.own(a.Pair)
	}
	p.adopted.Store(true)
	return all, nil
}

// metas reads what was left about pairs. Where the key that it was at goes meanwhile the kernel
// begins again: some are seen twice, and too many for an iteration.
func (p *Plane) metas() (all map[bpf.WireKey]Meta, err error) {
	const attempts = 10
	for range attempts {
		all = make(map[bpf.WireKey]Meta)
		var key bpf.WireKey
		var m Meta
		i := p.meta.Iterate()
		for i.Next(&key, &m) {
			all[key] = m
		}
		if err = i.Err(); !errors.Is(err, ebpf.ErrIterationAborted) {
			break
		}
	}
	return all, err
}

// has says whether an entry is that of a pair of this plane.
func (p *Plane) has(k *bpf.WireKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pairs[*k] != nil
}

// takeOutStale takes out what a process has left that is of no use: what it has noted of
// these, and all entries but the known ones and this plane's own.
func (p *Plane) takeOutStale(stale []bpf.WireKey, known map[bpf.WireKey]bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range stale {
		if p.pairs[stale[i]] == nil {
			p.unrecord(&stale[i])
		}
	}
	p.takeOutNotes(known)
	stale = nil
	var key bpf.WireKey
	var f bpf.WireFlow
	var broken []bpf.WireKey
	flows := p.objects.Flows.Iterate()
	for flows.Next(&key, &f) {
		if known[key] || p.pairs[key] != nil {
			continue
		}
		stale = append(stale, key)
		if other := f.Rewrite.To.Reverse(); isBroken(&f) && !known[other] && p.pairs[other] == nil {
			broken = append(broken, key)
		}
	}
	if err := flows.Err(); err != nil {
		return fmt.Errorf("read the flows left: %w", err)
	}
	p.resetBroken(broken)
	for i := range stale {
		p.objects.Delete(&stale[i])
	}
	return nil
}

func (pair *Pair) restore(m *Meta) {
	for i, k := range pair.keys {
		pair.legs[i] = leg{
			fd: -1, peer: k.From(), local: k.To(), peerMSS: int(m.Legs[i].MSS),
			info: sys.TCPInfo{
				Options: m.Legs[i].Options, SendScale: m.Legs[i].SendScale, ReceiveScale: m.Legs[i].ReceiveScale,
			},
		}
	}
	pair.timestamps = pair.legs[0].stamped()
}

// place gives link-local addresses the zone that they have on this machine, which keys
// don't: that of the interface by which the pair's packets leave.
func (pair *Pair) place(v *View) {
	for i := range pair.legs {
		l := &pair.legs[i]
		if l.peer.Addr().IsLinkLocalUnicast() && l.peer.Addr().Is6() {
			l.place(int(v.Flows[1-i].Rewrite.Ifindex))
		}
	}
}

// place has the addresses be those of an interface.
func (l *leg) place(ifindex int) {
	zone := strconv.Itoa(ifindex)
	l.peer = netip.AddrPortFrom(l.peer.Addr().WithZone(zone), l.peer.Port())
	l.local = netip.AddrPortFrom(l.local.Addr().WithZone(zone), l.local.Port())
}

// Instances returns the names of those that are pinned below root.
func Instances(root string) ([]string, error) {
	entries, err := os.ReadDir(Config{Root: root}.root())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Purge unpins all of an instance: the flows that no process has any more are
// cut, without a word to their ends.
func Purge(config Config) error {
	dir, err := config.dir()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	return nil
}

// A Table is the flows of an instance, for others than its process.
type Table struct{ plane *Plane }

// OpenTable opens the flows of an instance. ErrNotExist: there is none.
func OpenTable(config Config) (*Table, error) {
	dir, err := config.dir()
	if err != nil {
		return nil, err
	}
	p := &Plane{config: config, dir: dir, raw: [2]int{-1, -1}, pairs: make(map[bpf.WireKey]*Pair)}
	if p.objects.Flows, err = ebpf.LoadPinnedMap(filepath.Join(dir, bpf.WireMapFlows), nil); err != nil {
		return nil, fmt.Errorf("open flows of %s: %w", config.Instance, err)
	}
	if p.meta, err = ebpf.LoadPinnedMap(filepath.Join(dir, metaName), nil); err != nil {
		_ = p.objects.Flows.Close()
		return nil, fmt.Errorf("open flows of %s: %w", config.Instance, err)
	}
	p.notes = loadNotes(dir)
	if err := p.openRaw(); err != nil {
		_ = p.objects.Flows.Close()
		_ = p.meta.Close()
		_ = p.notes.Close() // of none: nothing
		return nil, err
	}
	return &Table{p}, nil
}

// Flows returns the spliced pairs.
func (t *Table) Flows() ([]Adopted, error) {
	var all []Adopted
	metas, err := t.plane.metas()
	if err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	for key, m := range metas {
		pair := &Pair{plane: t.plane, keys: [2]bpf.WireKey{key, m.B}}
		pair.restore(&m)
		if v, err := pair.Look(); err == nil { // else it has just ended
			pair.place(&v)
		}
		all = append(all, Adopted{pair, m, t.plane.noteOf(&key, m.Started)})
	}
	return all, nil
}

// End ends a spliced pair with a RST to both sides. Its entries stay for the process
// that has the instance, or the next one: it is told, and says how the flow ended.
// ENOENT, EALREADY: it has ended by itself.
func (t *Table) End(a Adopted) error {
	if err := t.loadControl(); err != nil {
		return err
	}
	if err := t.plane.objects.End(&a.keys); err != nil {
		return fmt.Errorf("end the flow: %w", err)
	}
	v, err := a.Look()
	if errors.Is(err, syscall.ENOENT) {
		return nil // the process was quicker
	}
	if err != nil {
		return fmt.Errorf("end the flow: %w", err)
	}
	a.sayReset(&v)
	return nil
}

// loadControl loads the program that changes entries, once.
func (t *Table) loadControl() error {
	if t.plane.objects.WireControl != nil {
		return nil
	}
	ended, err := ebpf.LoadPinnedMap(filepath.Join(t.plane.dir, bpf.WireMapEnded), nil)
	if err != nil {
		return fmt.Errorf("open reports of %s: %w", t.plane.config.Instance, err)
	}
	defer ended.Close()
	spec, err := bpf.LoadWire()
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	// As large as what is pinned: the relay may have chosen another size.
	spec.Maps[bpf.WireMapFlows].MaxEntries = t.plane.objects.Flows.MaxEntries()
	var control struct {
		Program *ebpf.Program `ebpf:"wire_control"`
	}
	options := ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		bpf.WireMapFlows: t.plane.objects.Flows, bpf.WireMapEnded: ended,
	}}
	if err := spec.LoadAndAssign(&control, &options); err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	t.plane.objects.WireControl = control.Program
	return nil
}

// Close lets the table go.
func (t *Table) Close() {
	_ = t.plane.objects.WireControl.Close() // of none: nothing
	_ = t.plane.objects.Flows.Close()
	_ = t.plane.meta.Close()
	_ = t.plane.notes.Close()
	t.plane.closeRaw()
}
