package proxy

import (
	"math/rand/v2"
	"slices"
)

// A balancer chooses members of an upstream, whose lock is held.
type balancer struct {
	turn  int // where least-connections begins to look
	table *maglevTable
	pool  []*member // scratch
}

// reset is called when the members have changed.
func (b *balancer) reset() { b.table = nil }

// pick returns the members to try, the best first.
func (b *balancer) pick(u *upstream, key pickKey) ([]*member, error) {
	c := &u.config
	pool, full := b.candidates(u, key)
	if len(pool) == 0 {
		if full {
			return nil, errFull
		}
		return nil, u.unavailable(key)
	}
	n := min(max(1, c.Attempts), len(pool))
	picked := make([]*member, 0, n)
	for len(picked) < n && len(pool) > 0 {
		i := b.choose(u, pool, key, len(picked))
		picked = append(picked, pool[i])
		pool = slices.Delete(pool, i, i+1)
	}
	// The last resort of one that has attempts left.
	for _, m := range u.members {
		if len(picked) >= max(1, c.Attempts) {
			break
		}
		if m.backup && m.usable() && u.serves(m, key) && !m.full() && !slices.Contains(picked, m) {
			picked = append(picked, m)
		}
	}
	return u.withRivals(picked, key), nil
}

// candidates are the members that may be used: the backups if no other is up. full
// says that there would be some, but for their limits.
func (b *balancer) candidates(u *upstream, key pickKey) (pool []*member, full bool) {
	pool = b.pool[:0]
	primaries, up := 0, 0
	for _, m := range u.members {
		if m.backup || m.gone || m.draining || !u.serves(m, key) {
			continue
		}
		primaries++
		if m.usable() {
			up++
		}
	}
	panics := primaries > 0 && float64(up) < u.config.PanicThreshold.of(float64(primaries))
	for _, m := range u.members {
		switch {
		case m.gone || m.draining || !u.serves(m, key) || u.spare(m, key):
		case m.backup && up > 0 || m.backup && panics:
		case m.usable() || panics:
			if m.full() {
				full = true
				continue
			}
			pool = append(pool, m)
		}
	}
	b.pool = pool
	return pool, full
}

// choose returns the index of the best in pool; attempt counts from 0, and only
// the first moves the turn on.
func (b *balancer) choose(u *upstream, pool []*member, key pickKey, attempt int) int {
	switch u.config.Balance {
	case First:
		return 0
	case LeastConnections:
		if attempt == 0 {
			b.turn++ // not for each attempt: with two of them it would always be the same turn
		}
		return b.leastConnections(u, pool)
	case RandomTwo:
		i, j := draw(u, pool), draw(u, pool)
		if load(u, pool[j]) < load(u, pool[i]) {
			return j
		}
		return i
	case Maglev:
		return b.hashed(u, pool, key, attempt)
	default:
		return roundRobin(u, pool, attempt)
	}
}

// roundRobin is the smooth weighted one: each gains its weight, the richest is
// chosen and pays for all.
func roundRobin(u *upstream, pool []*member, attempt int) int {
	best, total := 0, 0.0
	for i, m := range pool {
		if attempt == 0 {
			w := m.effective(&u.config)
			m.current += w
			total += w
		}
		if m.current > pool[best].current {
			best = i
		}
	}
	if attempt == 0 {
		pool[best].current -= total
	}
	return best
}

// load is how busy a member is, for its weight.
func load(u *upstream, m *member) float64 {
	return float64(m.active.Load()+1) / m.effective(&u.config)
}

func (b *balancer) leastConnections(u *upstream, pool []*member) int {
	best, least := 0, 0.0
	for k := range pool {
		i := (b.turn + k) % len(pool)
		if l := load(u, pool[i]); k == 0 || l < least {
			best, least = i, l
		}
	}
	return best
}

// draw picks one by chance, the heavy ones more often.
func draw(u *upstream, pool []*member) int {
	total := 0.0
	for _, m := range pool {
		total += m.effective(&u.config)
	}
	at := rand.Float64() * total
	for i, m := range pool {
		if at -= m.effective(&u.config); at < 0 {
			return i
		}
	}
	return len(pool) - 1
}

// hashed looks the key up. Where its member can't be used the key is hashed
// again: nobody else's member changes.
func (b *balancer) hashed(u *upstream, pool []*member, key pickKey, attempt int) int {
	var up []*member
	for _, m := range u.members {
		if slices.Contains(pool, m) || m.usable() && !m.backup && !u.spare(m, key) {
			up = append(up, m)
		}
	}
	if b.table == nil || !b.table.of(up) {
		b.table = newMaglev(up)
	}
	h := key.hash(u.config.Hash)
	for range maglevTries {
		if i := slices.Index(pool, b.table.lookup(h)); i >= 0 {
			return i
		}
		h = mix(h + 1)
	}
	return attempt % len(pool)
}
