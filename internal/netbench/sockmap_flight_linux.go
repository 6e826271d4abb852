package netbench

import "sync"

// A flight is the account of what is on its way from the sender to the
// consumer. Its methods are for any goroutine.
type flight struct {
	landed chan struct{} // closed when the sender has ended: what was sent is final

	mu       sync.Mutex
	limit    int64      // of what is sent and not consumed
	moved    *sync.Cond // with mu: the consumer has taken something, or all is over
	sent     int64
	consumed int64
	peak     int64 // most that was sent and not consumed
	held     bool  // the sender was at the limit
	over     bool  // nothing more is to be sent
	done     bool  // nothing more moves at all
	err      error // the first
}

func newFlight(limit int64) *flight {
	f := &flight{limit: limit, landed: make(chan struct{})}
	f.moved = sync.NewCond(&f.mu)
	return f
}

// maySend waits until n more bytes may be on their way; false: nothing is to be
// sent any more.
func (f *flight) maySend(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.over && f.sent-f.consumed+int64(n) > f.limit {
		f.held = true
		f.moved.Wait()
	}
	return !f.over
}

func (f *flight) send(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent += int64(n)
	f.peak = max(f.peak, f.sent-f.consumed)
}

func (f *flight) consume(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.consumed += int64(n)
	f.moved.Signal()
}

// open sets another limit.
func (f *flight) open(limit int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit, f.held = limit, false
	f.moved.Broadcast()
}

// finish has nothing more be sent.
func (f *flight) finish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	f.moved.Broadcast()
}

// fail ends the flight; nil is no failure.
func (f *flight) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	f.over, f.done = true, true
	f.moved.Broadcast()
}

// moving tells whether anything is to move any more.
func (f *flight) moving() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.done
}

// account returns what was sent and consumed.
func (f *flight) account() (sent, consumed int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent, f.consumed
}

func (f *flight) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
