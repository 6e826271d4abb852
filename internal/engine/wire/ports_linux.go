package wire

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
)

// Ports of this machine that spliced flows have towards their targets. No socket
// keeps the kernel from handing such a port out again.
type ports struct {
	low, high int // what the kernel chooses from
	used      map[netip.AddrPort]map[uint16]int
}

func (p *ports) open() error {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(b), &p.low, &p.high)
	}
	if err == nil && (p.low < 1 || p.high > 65535 || p.low > p.high) {
		err = fmt.Errorf("%d to %d", p.low, p.high)
	}
	if err != nil {
		return fmt.Errorf("read the range of local ports: %w", err)
	}
	p.used = make(map[netip.AddrPort]map[uint16]int)
	return nil
}

// A target is the same with and without a zone, and IPv4 in IPv6.
func plain(target netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(target.Addr().Unmap().WithZone(""), target.Port())
}

func (p *ports) of(target netip.AddrPort) map[uint16]int { return p.used[plain(target)] }

func (p *ports) take(target netip.AddrPort, port uint16) {
	target = plain(target)
	if p.used[target] == nil {
		p.used[target] = make(map[uint16]int)
	}
	p.used[target][port]++
}

func (p *ports) leave(target netip.AddrPort, port uint16) {
	target = plain(target)
	of := p.used[target]
	if of[port]--; of[port] <= 0 {
		delete(of, port)
	}
	if len(of) == 0 {
		delete(p.used, target)
	}
}

const (
	// portTries is how many places [Plane.Ports] looks at.
	portTries = 32
	// portsEnough is how many ports it is content with: sockets may have some of them. Of
	// narrower places it takes the widest of a few. Of many, that would be the same one each
	// time, until sockets have all of it.
	portsEnough = 32
	portPlaces  = 4
)

// Ports chooses local ports for a connection to a target, to be made: low to high, of which no
// flow to that target has one. 0 is any. ok says whether it has found some.
func (p *Plane) Ports(target netip.AddrPort) (low, high uint16, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ports.choose(target)
}

// Clear says whether no flow to a target has a local port from low to high.
func (p *Plane) Clear(target netip.AddrPort, low, high uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ports.clear(target, low, high)
}

// Reserved are local ports that the flows of another process have. The zero value has
// none.
type Reserved struct {
	mu    sync.Mutex
	ports ports
}

// Take adds some towards a target.
func (r *Reserved) Take(target netip.AddrPort, local []uint16) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ports.used == nil {
		if err := r.ports.open(); err != nil {
			return err
		}
	}
	for _, port := range local {
		r.ports.take(target, port)
	}
	return nil
}

// Leave undoes Take.
func (r *Reserved) Leave(target netip.AddrPort, local []uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, port := range local {
		r.ports.leave(target, port)
	}
}

// Ports is as that of a [Plane].
func (r *Reserved) Ports(target netip.AddrPort) (low, high uint16, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ports.choose(target)
}

// Clear is as that of a [Plane].
func (r *Reserved) Clear(target netip.AddrPort, low, high uint16) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ports.clear(target, low, high)
}

func (p *ports) choose(target netip.AddrPort) (low, high uint16, ok bool) {
	used := p.of(target)
	if len(used) == 0 {
		return 0, 0, true
	}
	places, most := 0, 0
	for i := 0; i < portTries && places < portPlaces && most < portsEnough; i++ {
		first := p.low + rand.IntN(p.high-p.low+1)
		n := 0
		for n < portsEnough && first+n <= p.high && used[uint16(first+n)] == 0 {
			n++
		}
		if n > 0 {
			places++
		}
		if n > most {
			most, low, high = n, uint16(first), uint16(first+n-1)
		}
	}
	return low, high, places > 0
}

func (p *ports) clear(target netip.AddrPort, low, high uint16) bool {
	used := p.of(target)
	if len(used) == 0 {
		return true
	}
	for port := int(low); port <= int(high); port++ {
		if used[uint16(port)] > 0 {
			return false
		}
	}
	return true
}

// own makes a pair's port and entries known. The plane is locked.
func (p *Plane) own(pair *Pair) {
	for i := range pair.keys {
		p.pairs[pair.keys[i]] = pair
	}
	pair.owned = true
	p.ports.take(pair.legs[1].peer, pair.legs[1].local.Port())
}

// disown undoes own. The plane is locked.
func (p *Plane) disown(pair *Pair) {
	if !pair.owned {
		return
	}
	pair.owned = false
	for i := range pair.keys {
		if p.pairs[pair.keys[i]] == pair {
			delete(p.pairs, pair.keys[i])
		}
	}
	p.ports.leave(pair.legs[1].peer, pair.legs[1].local.Port())
}
