package main

import (
	"sync"
	"time"
)

const (
	// repeatEvery is how often repeats are summed up.
	repeatEvery = 10 * time.Second
	// repeatMost is how many of a kind are told one by one in that time.
	repeatMost = 10
)

// A repeats keeps a flood of lines that say the same out of the log: the first of a
// kind are told, further ones counted, and the count is told when the time is over.
type repeats[K comparable] struct {
	tell func(kind K, n int, last any) // n further ones, and what was given for the last

	mu    sync.Mutex
	kinds map[K]*repeat
}

type repeat struct {
	n    int
	last any
	over *time.Timer
}

// again says whether one of that kind is to be told by itself.
func (r *repeats[K]) again(kind K, what any) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kinds[kind]
	if k == nil {
		if r.kinds == nil {
			r.kinds = make(map[K]*repeat)
		}
		k = new(repeat)
		k.over = time.AfterFunc(repeatEvery, func() { r.sum(kind, k) })
		r.kinds[kind] = k
	}
	k.n, k.last = k.n+1, what
	return k.n <= repeatMost
}

// sum ends the time of a kind.
func (r *repeats[K]) sum(kind K, k *repeat) {
	r.mu.Lock()
	mine := r.kinds[kind] == k
	if mine {
		delete(r.kinds, kind)
	}
	r.mu.Unlock()
	if n := k.n - repeatMost; mine && n > 0 {
		r.tell(kind, n, k.last)
	}
}

// flush tells what was counted so far.
func (r *repeats[K]) flush() {
	r.mu.Lock()
	kinds := r.kinds
	r.kinds = nil
	r.mu.Unlock()
	for kind, k := range kinds {
		k.over.Stop()
		if n := k.n - repeatMost; n > 0 {
			r.tell(kind, n, k.last)
		}
	}
}

// A seldom keeps lines that say the same a second apart.
type seldom struct {
	mu   sync.Mutex
	last time.Time
}

// may says whether one is to be told now.
func (s *seldom) may(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.last) < time.Second {
		return false
	}
	s.last = now
	return true
}
