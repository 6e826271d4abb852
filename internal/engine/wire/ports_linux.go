package wire

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
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

func (p *ports) take(target netip.AddrPort, port uint16) {
	if p.used[target] == nil {
		p.used[target] = make(map[uint16]int)
	}
	p.used[target][port]++
}

func (p *ports) leave(target netip.AddrPort, port uint16) {
	of := p.used[target]
	if of[port]--; of[port] <= 0 {
		delete(of, port)
	}
	if len(of) == 0 {
		delete(p.used, target)
	}
}

// portTries is how many ports [Plane.Port] looks at.
const portTries = 32

// Port chooses a local port for a connection to a target, to be made: one that no
// flow to that target has. 0 is any. ok says whether it has found one.
func (p *Plane) Port(target netip.AddrPort) (port uint16, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	used := p.ports.used[target]
	if len(used) == 0 {
		return 0, true
	}
	for range portTries {
		port = uint16(p.ports.low + rand.IntN(p.ports.high-p.ports.low+1))
		if used[port] == 0 {
			return port, true
		}
	}
	return 0, false
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
