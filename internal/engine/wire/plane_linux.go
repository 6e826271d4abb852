package wire

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// Config says where a plane lives.
type Config struct {
	// Instance is the name under which its maps and links outlive the process.
	// Without one they don't.
	Instance string
	// Root is the directory of the instances, in a BPF file system; empty is
	// [DefaultRoot].
	Root string
	// Entries is the size of the table, two for each pair; 0 is 262,144.
	Entries uint32
}

const (
	// linger is how long the entries of an ended pair stay.
	linger = time.Second
	// tick is the distance of the looks at what lingers.
	tick = 500 * time.Millisecond
)

// A Plane is the program with its table, in the network namespace of the thread
// that opened it.
type Plane struct {
	config   Config
	netns    namespace
	objects  bpf.WireObjects
	netlink  *netlink.Handle
	loopback int // index of lo
	routes   int // a socket that hears of changes
	raw      [2]int
	kept     bool // pinned
	dir      string
	lock     *os.File  // nil unless kept
	meta     *ebpf.Map // nil unless kept
	notes    *ebpf.Map // nil if there are none

	holding sync.Mutex // held while what only one process may do is done; comes before mu
	reader  *ringbuf.Reader
	reading sync.WaitGroup

	mu        sync.Mutex
	held      bool  // this process has the table: no other one
	lasting   bool  // does not end by itself
	lost      error // why it does not, though it was to
	links     map[hook]link.Link
	attaching map[int]*attachment
	pairs     map[bpf.WireKey]*Pair
	ports     ports
	older     []*older // layouts of other versions, with flows that go on
	retired   []retiree
	users     int  // pairs in the table, retired ones too
	asked     bool // since the last tick, also for pairs that were refused
	closed    bool

	life     sync.RWMutex // of the maps
	released bool

	adopted    atomic.Bool // pairs whose routes nobody has watched
	unfollowed int         // sweep's: rounds of follow that are due
	followAt   time.Time   // sweep's: the next is not before

	stop chan struct{}
	gone sync.WaitGroup
}

type retiree struct {
	pair *Pair
	at   time.Time
}

// Open loads the program. The error says what is missing: a privilege
// (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_NET_RAW), BPF, or a kernel of 6.6; or it is
// [ErrInUse].
func Open(config Config) (*Plane, error) { return open(config, false) }

// open has the table unless another process is to have it for now.
func open(config Config, another bool) (_ *Plane, err error) {
	p := &Plane{
		config: config, raw: [2]int{-1, -1}, routes: -1,
		links: make(map[hook]link.Link), attaching: make(map[int]*attachment), pairs: make(map[bpf.WireKey]*Pair),
		stop: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			p.release()
		}
	}()
	if p.netns, err = currentNamespace(); err != nil {
		return nil, err
	}
	if err := p.ports.open(); err != nil {
		return nil, err
	}
	_ = rlimit.RemoveMemlock() // before Linux 5.11 maps count against it
	if err := p.load(!another); err != nil {
		return nil, because(err)
	}
	if p.netlink, err = openNetlink(); err != nil {
		return nil, err
	}
	if p.loopback, err = findLoopback(p.netlink); err != nil {
		return nil, err
	}
	if p.routes, err = sys.RouteChanges(); err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	if err := p.openRaw(); err != nil {
		return nil, because(err)
	}
	if !another {
		if err := p.Hold(); err != nil {
			return nil, err
		}
	}
	p.gone.Go(p.sweep)
	return p, nil
}

// because names the capabilities that are missing, if some are.
func because(err error) error {
	return sys.Because(err, sys.CapBPF, sys.CapPerfmon, sys.CapNetAdmin, sys.CapNetRaw)
}

func (p *Plane) load(lock bool) error {
	spec, err := bpf.LoadWire()
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	if p.config.Entries != 0 {
		spec.Maps[bpf.WireMapFlows].MaxEntries = p.config.Entries
	}
	var options ebpf.CollectionOptions
	if p.config.Instance != "" {
		p.kept, p.lasting = true, true
		if options.MapReplacements, err = p.openPinned(spec, lock); err != nil {
			return err
		}
		defer func() {
			for _, m := range options.MapReplacements {
				_ = m.Close() // the collection has its own descriptors
			}
		}()
	}
	if err := spec.LoadAndAssign(&p.objects, &options); err != nil {
		var verifier *ebpf.VerifierError
		if errors.As(err, &verifier) {
			return fmt.Errorf("load program: %w", verifier)
		}
		return fmt.Errorf("load program: %w", err)
	}
	return nil
}

// read passes on what the program reports. What finds no room is lost: there are so many
// reports then that more than half of the room is taken behind the next one, and when all
// are read every pair is looked at.
func (p *Plane) read(reader *ringbuf.Reader) {
	var record ringbuf.Record
	lost := false
	for {
		err := reader.ReadInto(&record)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		var key bpf.WireKey
		var big bpf.WireOversize
		switch b := record.RawSample; {
		case fill(&big, b):
			// Lost, as any packet can be: the sender tries again, and is told again.
			if pair := p.pairOf(&big.Key); pair != nil {
				_ = p.sendPacket(tooBig(&big), pair.sender(&big.Key))
			}
		case fill(&key, b):
			if pair := p.pairOf(&key); pair != nil {
				pair.news()
			}
		}
		if record.Remaining > reader.BufferSize()/2 {
			lost = true
		} else if lost && record.Remaining == 0 {
			lost = false
			p.reportAll()
		}
	}
}

// pairOf is the pair that has an entry; nil: it was taken out.
func (p *Plane) pairOf(k *bpf.WireKey) *Pair {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pairs[*k]
}

// fill copies a record into what it is of, if there is enough of it.
func fill[T bpf.WireKey | bpf.WireOversize](to *T, record []byte) bool {
	b := unsafe.Slice((*byte)(unsafe.Pointer(to)), unsafe.Sizeof(*to))
	return len(record) >= len(b) && copy(b, record) == len(b)
}

// reportAll tells of all pairs about whose ends there is something to tell.
func (p *Plane) reportAll() {
	for _, pair := range p.all() {
		v, err := pair.Look()
		if err != nil {
			continue // it has just ended
		}
		if v.Ended || v.Divided || v.Doubted != [2]int64{} || v.FIN[0] || v.FIN[1] || v.Reset[0] || v.Reset[1] || v.Flows[0].BarMet|v.Flows[1].BarMet != 0 {
			pair.news()
		}
	}
}

// all are the pairs in the table.
func (p *Plane) all() (pairs []*Pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, pair := range p.pairs {
		if k == pair.keys[0] {
			pairs = append(pairs, pair)
		}
	}
	return pairs
}

// sweep takes out what has lingered, and ends the plane when nobody has used it
// for a while.
func (p *Plane) sweep() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	idle := 0
	var looked time.Time
	for {
		select {
		case <-p.stop:
			return
		case now := <-ticker.C:
			p.collect(now)
			p.asHolder(func() {
				p.watchRoutes()
				if p.kept && now.Sub(looked) >= olderLook {
					looked = now
					p.drainOlder(time.Duration(sys.Monotonic()))
				}
			})
		}
		p.mu.Lock()
		if idle++; p.users > 0 || p.lasting || p.asked {
			idle = 0
		}
		p.asked = false
		over := idle > 1 && !p.closed
		if over {
			p.closed = true
		}
		p.mu.Unlock()
		if over {
			// This goroutine is the last: it releases what the plane has.
			go p.finish()
			return
		}
	}
}

func (p *Plane) collect(now time.Time) {
	for {
		p.mu.Lock()
		if len(p.retired) == 0 || now.Sub(p.retired[0].at) < linger {
			p.mu.Unlock()
			return
		}
		pair := p.retired[0].pair
		p.retired = p.retired[1:]
		p.mu.Unlock()
		pair.remove()
	}
}

func (p *Plane) forget(pair *Pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pair.owned {
		p.disown(pair)
		p.users--
	}
}

// claim keeps the plane from ending by itself; false: it has ended.
func (p *Plane) claim() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.users++
	p.asked = true
	return true
}

// Keep has the plane stay until release is called, also while nobody uses it; false: it has ended.
func (p *Plane) Keep() (release func(), ok bool) {
	if !p.claim() {
		return nil, false
	}
	return sync.OnceFunc(p.unclaim), true
}

func (p *Plane) unclaim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users--
}

// Alive says that the plane has not ended.
func (p *Plane) Alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed
}

// Close ends the plane; what is pinned stays.
func (p *Plane) Close() {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.mu.Unlock()
	if first {
		close(p.stop)
	}
	p.finish()
}

// finish waits for the goroutines and lets everything go.
func (p *Plane) finish() {
	p.deafen()
	p.gone.Wait()
	p.release()
}

func (p *Plane) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.life.Lock()
	defer p.life.Unlock()
	p.released = true
	p.drop()
	_ = p.objects.Close()
	p.netns.close()
	if p.netlink != nil {
		p.netlink.Close()
	}
	if p.routes >= 0 {
		_ = sys.Close(p.routes)
	}
	p.closeRaw()
	_ = p.meta.Close() // of none: nothing
	_ = p.notes.Close()
	if p.lock != nil {
		_ = p.lock.Close()
	}
}

func (p *Plane) openRaw() error {
	for i, family := range []int{syscall.AF_INET, syscall.AF_INET6} {
		fd, err := sys.RawSocket(family)
		if err != nil && family == syscall.AF_INET {
			return fmt.Errorf("open raw socket: %w", err)
		}
		if err == nil { // else there is no IPv6
			p.raw[i] = fd
		}
	}
	return nil
}

func (p *Plane) closeRaw() {
	for i, fd := range p.raw {
		if fd >= 0 {
			_ = sys.Close(fd)
			p.raw[i] = -1
		}
	}
}
