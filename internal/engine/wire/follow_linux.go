package wire

import (
	"errors"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/spliced-io/spliced/internal/bpf"
	"github.com/spliced-io/spliced/internal/sys"
)

// A way is that of packets to a peer, from an address of this machine.
type way struct{ local, peer netip.Addr }

// follow has the packets of spliced pairs leave by where the routes lead now. again
// says that a program is being attached to an interface, or that a pair was not
// spliced yet. A pair without a route waits for one, as sockets do.
func (p *Plane) follow() (again bool) {
	p.dropLinks()
	hops := make(map[way]int) // 0: none
	for _, pair := range p.all() {
		v, err := pair.Look()
		if err != nil {
			continue // it has just ended
		}
		var to [2]uint32
		for i := range v.Flows {
			if v.Flows[i].State == bpf.WirePass {
				again = true // its switch may use the route of before
				continue
			}
			l := &pair.legs[1-i] // where the flow leaves
			w := way{l.local.Addr(), l.peer.Addr()}
			ifindex, known := hops[w]
			if !known {
				if h, why, _ := p.lookup(w.local, w.peer); why == 0 {
					ifindex = h.ifindex
				}
				hops[w] = ifindex
			}
			if ifindex == 0 || uint32(ifindex) == v.Flows[i].Rewrite.Ifindex {
				continue
			}
			if why, err := p.attached(ifindex); err == ErrPending {
				again = true
			} else if why == 0 && err == nil {
				to[i] = uint32(ifindex)
			}
		}
		if to != [2]uint32{} {
			_ = p.objects.Route(&pair.keys, to) // ENOENT: it has just ended
		}
	}
	return again
}

// dropLinks lets go of the programs on interfaces that are gone.
func (p *Plane) dropLinks() {
	for _, ifindex := range p.Attached() {
		var gone netlink.LinkNotFoundError
		if _, err := p.netlink.LinkByIndex(ifindex); !errors.As(err, &gone) {
			continue
		}
		for _, h := range p.hooks(ifindex) {
			p.mu.Lock()
			l := p.links[h]
			delete(p.links, h)
			p.mu.Unlock()
			if l == nil {
				continue
			}
			_ = l.Close()
			if p.kept {
				_ = os.Remove(h.path(p.dir))
			}
		}
	}
}

// followShare bounds the time that is spent on following: where routes change all the
// time, a tenth of a processor.
const followShare = 10

// watchRoutes follows what has changed, and once more after that: a pair may have been
// about to be spliced.
func (p *Plane) watchRoutes() {
	if sys.RoutesChanged(p.routes) || p.adopted.Swap(false) {
		p.unfollowed = 2
	}
	began := time.Now()
	if p.unfollowed == 0 || began.Before(p.followAt) {
		return
	}
	p.unfollowed--
	if p.follow() {
		p.unfollowed = max(p.unfollowed, 1)
	}
	p.followAt = began.Add(followShare * time.Since(began))
}
