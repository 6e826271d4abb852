package access

import (
	"net/netip"
	"sync"
	"time"
)

// remembered is how many clients a [Rate] knows at a time: some 7 MiB.
const remembered = 64 << 10

// A Rate bounds how often each client may come: so many times a second on
// average, and as many at once as make up a burst. It remembers the last 65,536
// clients. One who was forgotten has its whole burst again; but those are the
// ones that were not seen for longest, so that it takes a flood of addresses to
// gain a burst.
type Rate struct {
	every time.Duration // between two, on average
	slack time.Duration // how far ahead of that a client may be
	most  int

	mu      sync.Mutex
	epoch   time.Time
	clients map[netip.Addr]*visitor
	seen    visitor // a ring: next is who was seen last, prev who was not for longest
}

// A visitor is due again at that time, since the epoch: the client may come up
// to slack before it.
type visitor struct {
	prev, next *visitor
	addr       netip.Addr
	due        time.Duration
}

// NewRate makes a Rate. Without perSecond, or with a negative one, there is no
// limit. A burst below 1 is 1.
func NewRate(perSecond float64, burst int) *Rate {
	r := &Rate{most: remembered, epoch: time.Now()}
	if perSecond > 0 {
		r.every = max(1, time.Duration(float64(time.Second)/perSecond))
		r.slack = time.Duration(max(1, burst)-1) * r.every
	}
	return r
}

// Take says whether the client at addr may come now, and counts it if so.
func (r *Rate) Take(addr netip.Addr) bool { return r.take(addr, time.Now()) }

func (r *Rate) take(addr netip.Addr, at time.Time) bool {
	if r == nil || r.every == 0 || !addr.IsValid() {
		return true
	}
	now := at.Sub(r.epoch)
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.visit(Client(addr))
	if v.due-now > r.slack {
		return false
	}
	v.due = max(v.due, now) + r.every
	return true
}

// visit returns who is at addr, as the one seen last. r.mu is held.
func (r *Rate) visit(addr netip.Addr) *visitor {
	if r.clients == nil {
		r.clients = make(map[netip.Addr]*visitor)
		r.seen.prev, r.seen.next = &r.seen, &r.seen
	}
	v := r.clients[addr]
	switch {
	case v != nil:
		v.leave()
	case len(r.clients) >= r.most:
		v = r.seen.prev
		v.leave()
		delete(r.clients, v.addr)
		*v = visitor{addr: addr}
		r.clients[addr] = v
	default:
		v = &visitor{addr: addr}
		r.clients[addr] = v
	}
	v.prev, v.next = &r.seen, r.seen.next
	v.prev.next, v.next.prev = v, v
	return v
}

func (v *visitor) leave() { v.prev.next, v.next.prev = v.next, v.prev }
