package wire

import (
	"fmt"
	"maps"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// One process at a time has an instance: enters pairs, attaches the program to interfaces,
// hears what it reports, and follows routes. An upgrade has another one take its place:
//
//	new: Prepare, which takes the tenth of a second that it takes to load the program
//	old: LetGo. The program goes on by itself, for some milliseconds
//	new: Hold, which puts its own program on the interfaces; then Adopt
//
// The old one can still look at its own pairs, and take them out or back: no other process
// touches their entries as long as it lives.

// Prepare is Open but for the table of an instance, which another process has for now: it does
// not end before it was held.
func Prepare(config Config) (*Plane, error) { return open(config, true) }

// Hold has this process have the table. [ErrInUse]: another one has it. Of a table without an
// instance there is one for each process. It does nothing for one that is held.
func (p *Plane) Hold() (err error) {
	p.holding.Lock()
	defer p.holding.Unlock()
	if p.isHeld() {
		return nil
	}
	var older []*older
	var links map[hook]link.Link
	if p.kept {
		if err = p.take(); err == nil {
			if older, err = p.openOlder(); err == nil {
				links, err = p.takeLinks()
			}
		}
	}
	var reader *ringbuf.Reader
	if err == nil {
		if reader, err = ringbuf.NewReader(p.objects.Ended); err != nil {
			err = fmt.Errorf("read ring buffer: %w", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(p.links, links)
	p.haveOlder(older)
	if err == nil && p.closed {
		_ = reader.Close()
		reader, err = nil, ErrClosed
	}
	p.lost, p.reader = err, reader
	if err != nil {
		p.drop()
		return err
	}
	p.reading.Go(func() { p.read(reader) })
	p.held, p.lasting = true, p.kept
	return nil
}

func (p *Plane) isHeld() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// LetGo undoes Hold for a table with an instance. It returns the pairs that are this process's
// yet: nobody else may adopt those. Without any, the plane soon ends.
func (p *Plane) LetGo() []Flow {
	if !p.kept {
		return nil
	}
	p.holding.Lock()
	defer p.holding.Unlock()
	p.mu.Lock()
	p.held, p.lasting = false, false // no pair is entered any more, and nothing attached
	p.mu.Unlock()
	p.deafen()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
	var mine []Flow
	for k, pair := range p.pairs {
		if k == pair.keys[0] {
			mine = append(mine, pair.Flow())
		}
	}
	return mine
}

// deafen hears no reports any more, and waits for what is being attached.
func (p *Plane) deafen() {
	p.mu.Lock()
	reader := p.reader
	p.mu.Unlock()
	if reader != nil {
		_ = reader.Close()
	}
	p.reading.Wait()
}

// drop lets go of what one process at a time may have. The plane is locked.
func (p *Plane) drop() {
	p.reader = nil
	closeLinks(p.links)
	p.leaveOlder()
	if p.lock != nil {
		_ = syscall.Flock(int(p.lock.Fd()), syscall.LOCK_UN)
	}
}

// asHolder calls f if this process has the table, which it has until f returns.
func (p *Plane) asHolder(f func()) {
	p.holding.Lock()
	defer p.holding.Unlock()
	if p.isHeld() {
		f()
	}
}

// ready says whether pairs can be entered.
func (p *Plane) ready() (Refusal, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.held:
		return 0, nil
	case p.lost != nil:
		return Denied, p.lost
	}
	return 0, ErrPending
}

// ID is that of the table: whoever has pinned maps of the same numbers can adopt its pairs. It is
// none of a plane that is not pinned, or has ended.
func (p *Plane) ID() (id TableID, err error) {
	p.life.RLock()
	defer p.life.RUnlock()
	if !p.kept || p.released {
		return id, nil
	}
	for i, m := range []*ebpf.Map{p.objects.Flows, p.meta} {
		info, err := m.Info()
		if err != nil {
			return TableID{}, fmt.Errorf("ask for a map's number: %w", err)
		}
		n, ok := info.ID()
		if !ok {
			return TableID{}, fmt.Errorf("ask for a map's number: %w", ebpf.ErrNotSupported)
		}
		id[i] = uint32(n)
	}
	return id, nil
}

// Flow names the pair.
func (pair *Pair) Flow() Flow {
	a, b := pair.keys[0], pair.keys[1]
	return Flow{A: a.From(), ALocal: a.To(), BLocal: b.To(), B: b.From()}
}
