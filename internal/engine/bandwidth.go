package engine

import (
	"sync/atomic"
	"time"
)

// A Bandwidth is so many bytes a second, for one direction of a session or for
// any number of them, which then get it in turns. It is a token bucket that
// holds a tenth of a second's bytes. All methods are safe for concurrent use.
type Bandwidth struct {
	perSecond float64
	turn      int           // bytes that are given at a time
	burst     time.Duration // the bucket's depth
	epoch     time.Time
	paid      atomic.Int64 // nanoseconds since epoch: by then the bucket is full again
}

const (
	// A turn is of a hundredth of a second's bytes, within these bounds: short
	// enough to share out, long enough not to wake anybody for a few bytes.
	leastTurn = 512
	mostTurn  = 64 << 10
	// bandwidthBurst is the depth of a bucket. A timer of the event loops is up
	// to a millisecond late: the bucket fills meanwhile.
	bandwidthBurst = 100 * time.Millisecond
)

// NewBandwidth makes a Bandwidth of at least one byte a second.
func NewBandwidth(bytesPerSecond int64) *Bandwidth {
	n := max(1, bytesPerSecond)
	b := &Bandwidth{perSecond: float64(n), epoch: time.Now()}
	b.turn = int(min(max(n/100, leastTurn), mostTurn, n))
	b.burst = max(bandwidthBurst, b.time(b.turn))
	return b
}

// time is how long n bytes take.
func (b *Bandwidth) time(n int) time.Duration {
	return time.Duration(float64(n) / b.perSecond * float64(time.Second))
}

// take takes n bytes from the bucket and says in how long they are there.
func (b *Bandwidth) take(n int) (wait time.Duration) {
	now, cost := time.Since(b.epoch), b.time(n)
	for {
		old := b.paid.Load()
		paid := max(time.Duration(old), now) + cost
		if b.paid.CompareAndSwap(old, int64(paid)) {
			return max(0, paid-now-b.burst)
		}
	}
}

// putBack returns bytes that were taken and not used.
func (b *Bandwidth) putBack(n int) { b.paid.Add(-int64(b.time(n))) }

// A Brake holds one direction to its bandwidths. It belongs to whoever moves the
// bytes of that direction.
type Brake struct {
	own, shared *Bandwidth
	turn        int
	given       int // bytes that were taken from the buckets and not read yet
}

// newBrake returns nil where there is nothing to hold to.
func newBrake(perSecond int64, shared *Bandwidth) *Brake {
	if perSecond <= 0 && shared == nil {
		return nil
	}
	b := &Brake{shared: shared, turn: mostTurn}
	if perSecond > 0 {
		b.own = NewBandwidth(perSecond)
		b.turn = b.own.turn
	}
	if shared != nil {
		b.turn = min(b.turn, shared.turn)
	}
	return b
}

// Next takes a turn's bytes, if none are left of the last one, and returns in
// how long they may be read.
func (b *Brake) Next() (wait time.Duration) {
	if b.given > 0 {
		return 0
	}
	b.given = b.turn
	return b.Spend(b.turn)
}

// Given is how many bytes may be read, once the wait is over.
func (b *Brake) Given() int { return b.given }

// Spend notes that n bytes were read without asking before, and returns how long
// to wait before more are.
func (b *Brake) Spend(n int) (wait time.Duration) {
	if b.own != nil {
		wait = b.own.take(n)
	}
	if b.shared != nil {
		wait = max(wait, b.shared.take(n))
	}
	return wait
}

// Read notes that n bytes were read.
func (b *Brake) Read(n int) { b.given = max(0, b.given-n) }

// Rest gives back what is not going to be read now: the source has nothing, or
// has ended.
func (b *Brake) Rest() {
	if b.given == 0 {
		return
	}
	if b.own != nil {
		b.own.putBack(b.given)
	}
	if b.shared != nil {
		b.shared.putBack(b.given)
	}
	b.given = 0
}

// Brakes returns those of both directions, nil for none.
func (l *Limits) Brakes() (aToB, bToA *Brake) {
	return newBrake(l.RateAToB, l.SharedAToB), newBrake(l.RateBToA, l.SharedBToA)
}

// braked says whether some bandwidth is limited.
func (l *Limits) braked() bool {
	return l.RateAToB > 0 || l.RateBToA > 0 || l.SharedAToB != nil || l.SharedBToA != nil
}
