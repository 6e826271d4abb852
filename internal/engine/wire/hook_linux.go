package wire

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// A hook is where a program sees the packets of an interface.
type hook struct {
	ifindex int
	out     bool // those that leave by it, else those that come in
}

// hooks are those that an interface needs: what comes in, and of lo what leaves too,
// which is the same a moment earlier.
func (p *Plane) hooks(ifindex int) []hook {
	if ifindex == p.loopback {
		return []hook{{ifindex, false}, {ifindex, true}}
	}
	return []hook{{ifindex, false}}
}

const (
	linkPrefix = "link-"
	linkOut    = "-out"
)

// path is where the link is pinned.
func (h hook) path(dir string) string {
	name := linkPrefix + strconv.Itoa(h.ifindex)
	if h.out {
		name += linkOut
	}
	return filepath.Join(dir, name)
}

// hookOf is the one whose link has that name.
func hookOf(name string) (h hook, ok bool) {
	number, ok := strings.CutPrefix(name, linkPrefix)
	if !ok {
		return h, false
	}
	number, h.out = strings.CutSuffix(number, linkOut)
	var err error
	h.ifindex, err = strconv.Atoi(number)
	return h, err == nil
}

func (p *Plane) program(h hook) *ebpf.Program {
	if h.out {
		return p.objects.WireEgress
	}
	return p.objects.WireIngress
}

// attached says whether the programs see what comes in by an interface. If not,
// they are attached in the background, which can take tens of milliseconds.
func (p *Plane) attached(ifindex int) (Refusal, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing []hook
	for _, h := range p.hooks(ifindex) {
		if p.links[h] == nil {
			missing = append(missing, h)
		}
	}
	if len(missing) == 0 {
		return 0, nil
	}
	a := p.attaching[ifindex]
	switch {
	case p.closed:
		return Broken, ErrClosed
	case !p.held:
		return 0, ErrPending
	case a == nil:
		a = &attachment{}
		p.attaching[ifindex] = a
		p.reading.Go(func() { p.attachTo(ifindex, missing, a) })
	case a.why != 0:
		why, err := a.why, a.err
		if time.Since(a.failed) > attachRetry {
			delete(p.attaching, ifindex)
		}
		return why, err
	}
	return 0, ErrPending
}

// attachRetry is how long a failure is believed.
const attachRetry = 10 * time.Second

// An attachment is on its way, or has failed.
type attachment struct {
	why    Refusal
	err    error
	failed time.Time
}

func (p *Plane) attachTo(ifindex int, missing []hook, a *attachment) {
	why := Broken
	links := make(map[hook]link.Link)
	err := p.netns.do(func() (err error) {
		for _, h := range missing {
			if links[h], why, err = p.attach(h); why != 0 {
				delete(links, h)
				return err
			}
		}
		return nil
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	for h, l := range links {
		p.links[h] = l // also beside one that has failed: it is pinned
	}
	if a.why, a.err, a.failed = why, err, time.Now(); why == 0 {
		delete(p.attaching, ifindex)
	}
}

func (p *Plane) attach(h hook) (link.Link, Refusal, error) {
	ok, err := p.ethernet(h.ifindex)
	if err != nil {
		return nil, NoRoute, err
	}
	if !ok {
		return nil, LinkLayer, nil
	}
	where := ebpf.AttachTCXIngress
	if h.out {
		where = ebpf.AttachTCXEgress
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: h.ifindex, Program: p.program(h), Attach: where})
	if err != nil {
		return nil, Denied, fmt.Errorf("attach to interface %d: %w", h.ifindex, err)
	}
	if p.kept {
		if err := l.Pin(h.path(p.dir)); err != nil {
			_ = l.Close()
			return nil, Denied, fmt.Errorf("pin link: %w", err)
		}
	}
	return l, 0, nil
}

// Attached returns the indexes of the interfaces that have the program.
func (p *Plane) Attached() (ifindexes []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for h := range p.links {
		if !h.out {
			ifindexes = append(ifindexes, h.ifindex)
		}
	}
	return ifindexes
}
