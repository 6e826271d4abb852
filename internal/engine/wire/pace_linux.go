package wire

import "time"

// paceLeast is the shortest time, with a round trip more, in which bytes are counted.
const paceLeast = time.Millisecond

// A pace is how much a peer sends at a time. The zero value knows nothing yet.
type pace struct {
	began time.Duration
	from  uint32
	last  uint32 // bytes of a whole period, the most of late ones
	seen  int    // periods, up to paceKnown
}

// paceKnown is how many periods there have to be. The first may begin behind a burst.
const paceKnown = 2

// see takes note of the number of the next byte that comes. One period is over when it
// has lasted so long; a longer one has more bytes in it, never fewer.
func (p *pace) see(now, period time.Duration, next uint32) {
	if p.began == 0 {
		p.began, p.from = now, next
		return
	}
	if now-p.began < period {
		return
	}
	p.last = max(next-p.from, p.last/2) // a burst is remembered for some periods
	p.began, p.from = now, next
	p.seen = min(p.seen+1, paceKnown)
}

// most is how many bytes a round trip had at most of late, if that is known.
func (p *pace) most() (n uint32, known bool) { return p.last, p.seen == paceKnown }
