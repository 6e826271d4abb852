package netbench

import (
	"context"
	"sync/atomic"
	"time"
)

// start is the moment from which a load's time runs: when bytes have come all
// the way on each of its streams, however long a proxy has taken to connect.
// If some are late, it is a settling time after the first.
type start struct {
	streams int
	settle  time.Duration
	base    time.Time
	first   atomic.Int64 // when the first began, in ns after base; 0 before
	at      atomic.Int64 // the start; 0 while it is not known
	begun   atomic.Int64
	some    chan struct{} // closed when one stream has begun
	all     chan struct{} // closed when all have
}

func newStart(streams int, settle time.Duration) *start {
	return &start{
		streams: streams, settle: settle, base: time.Now(),
		some: make(chan struct{}), all: make(chan struct{}),
	}
}

// begin says that one more stream has begun.
func (s *start) begin() {
	now := max(int64(time.Since(s.base)), 1)
	if s.first.CompareAndSwap(0, now) {
		close(s.some)
	}
	if s.begun.Add(1) == int64(s.streams) {
		s.at.CompareAndSwap(0, now)
		close(s.all)
	}
}

// since returns how long ago the start was; false before it.
func (s *start) since() (time.Duration, bool) {
	now, first := int64(time.Since(s.base)), s.first.Load()
	if latest := first + int64(s.settle); first != 0 && now >= latest {
		s.at.CompareAndSwap(0, latest)
	}
	at := s.at.Load()
	return time.Duration(now - at), at != 0
}

// await waits for the start, and says whether it came: not when ctx ended, a
// stream broke, or none began within the patience.
func (s *start) await(ctx context.Context, broken <-chan struct{}, patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.some:
	case <-timer.C:
		return false
	case <-broken:
		return false
	case <-ctx.Done():
		return false
	}
	timer.Reset(s.settle)
	select {
	case <-s.all:
	case <-timer.C:
	case <-broken:
		return false
	case <-ctx.Done():
		return false
	}
	s.at.CompareAndSwap(0, int64(time.Since(s.base)))
	return true
}

// late is how many streams have not begun.
func (s *start) late() int { return max(s.streams-int(s.begun.Load()), 0) }
