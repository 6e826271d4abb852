package proxy

import (
	"context"
	"slices"
	"time"
)

// choose is pick for those who have time: where every server is full it waits
// in the queue.
func (u *upstream) choose(ctx context.Context, key pickKey) ([]*member, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.waiting) == 0 {
		if members, err := u.pickNow(key); err != errFull {
			return members, err
		}
	}
	if len(u.waiting) >= u.config.Queue.Limit {
		return nil, errQueueFull
	}
	turn := make(chan struct{}, 1)
	u.waiting = append(u.waiting, turn)
	u.queued.Add(1)
	defer u.quit(turn)
	u.next() // one that has left since the first look has found nobody to tell
	timer := time.NewTimer(time.Duration(u.config.Queue.Timeout))
	defer timer.Stop()
	for {
		u.mu.Unlock()
		var late error
		select {
		case <-turn:
		case <-timer.C:
			late = errQueueLate
		case <-ctx.Done():
			late = context.Cause(ctx)
		}
		u.mu.Lock()
		// Also when the time is over: there may be room just now.
		if members, err := u.pickNow(key); err != errFull {
			return members, err
		}
		if late != nil {
			return nil, late
		}
	}
}

// quit leaves the queue, and lets the next one look. u.mu is held.
func (u *upstream) quit(turn chan struct{}) {
	i := slices.Index(u.waiting, turn)
	u.waiting = slices.Delete(u.waiting, i, i+1)
	u.queued.Add(-1)
	u.next()
}

// next lets the first of the queue look whether there is room. u.mu is held.
func (u *upstream) next() {
	if len(u.waiting) == 0 {
		return
	}
	select {
	case u.waiting[0] <- struct{}{}:
	default: // told before
	}
}

// wakeOne lets the first of the queue look: a connection has ended.
func (u *upstream) wakeOne() {
	if u.queued.Load() == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next()
}

// wake lets the queue look: the members have changed.
func (u *upstream) wake() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next() // who leaves the queue wakes the next
}
