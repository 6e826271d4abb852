package proxy

import "slices"

// maglevSize is the prime number of slots of a table, about a hundred times the
// members of a large upstream: "Maglev: A Fast and Reliable Software Network Load
// Balancer", NSDI 2016, section 3.4.
const maglevSize = 65537

// maglevTries is how often a key is hashed again for a member that can be used.
const maglevTries = 64

// A maglevTable gives each member a share of the slots, nearly even, and moves
// few of them when members come and go.
type maglevTable struct {
	members []*member
	weights []int
	slots   []uint16
}

func (t *maglevTable) of(members []*member) bool {
	if !slices.Equal(t.members, members) {
		return false
	}
	for i, m := range members {
		if t.weights[i] != m.weight {
			return false
		}
	}
	return true
}

func (t *maglevTable) lookup(hash uint64) *member { return t.members[t.slots[hash%maglevSize]] }

// newMaglev fills a table. The members take turns, heavy ones more often, and
// each takes the next free slot of a permutation of its own.
func newMaglev(members []*member) *maglevTable {
	t := &maglevTable{members: slices.Clone(members), slots: make([]uint16, maglevSize)}
	heaviest := 1
	type walk struct{ at, skip, credit int }
	walks := make([]walk, len(members))
	for i, m := range members {
		h := mix(fnv(m.name))
		walks[i] = walk{at: int(h % maglevSize), skip: int(mix(h)%(maglevSize-1)) + 1}
		t.weights = append(t.weights, m.weight)
		heaviest = max(heaviest, m.weight)
	}
	taken := make([]bool, maglevSize)
	for filled := 0; filled < maglevSize; {
		for i := range walks {
			w := &walks[i]
			if w.credit += t.weights[i]; w.credit < heaviest {
				continue
			}
			w.credit -= heaviest
			for taken[w.at] {
				w.at = (w.at + w.skip) % maglevSize
			}
			taken[w.at] = true
			t.slots[w.at] = uint16(i)
			if filled++; filled == maglevSize {
				break
			}
		}
	}
	return t
}

// hash is the same in every process, so that several proxies agree.
func (k pickKey) hash(by HashKey) uint64 {
	if by == BySNI && k.sni != "" {
		return mix(fnv(k.sni))
	}
	return mix(fnv(string(k.source.AsSlice())))
}

// fnv is FNV-1a.
func fnv(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix spreads the bits of h: the finalizer of SplitMix64.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
