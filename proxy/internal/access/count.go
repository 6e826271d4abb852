package access

import (
	"net/netip"
	"sync"
)

// A Count bounds how many connections a client has at a time. It knows the
// clients that have some, and nobody else.
type Count struct {
	most int

	mu   sync.Mutex
	open map[netip.Addr]int
}

// NewCount makes a Count. 0 is no limit.
func NewCount(most int) *Count { return &Count{most: most, open: make(map[netip.Addr]int)} }

// Enter says whether the client at addr may have one more, and counts it if so:
// then Leave must be called when it has ended.
func (c *Count) Enter(addr netip.Addr) bool {
	if c == nil || c.most <= 0 || !addr.IsValid() {
		return true
	}
	addr = Client(addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[addr] >= c.most {
		return false
	}
	c.open[addr]++
	return true
}

// Leave takes one that Enter has counted away.
func (c *Count) Leave(addr netip.Addr) {
	if c == nil || c.most <= 0 || !addr.IsValid() {
		return
	}
	addr = Client(addr)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[addr]--; c.open[addr] <= 0 {
		delete(c.open, addr)
	}
}

// Clients is how many clients have connections.
func (c *Count) Clients() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}
