package wire

import "github.com/spliced-io/spliced/internal/bpf"

// A pair is broken whose sockets have ended with their process between the switch and what they
// had to deliver. What the kernel says for them at their end is old to a side that has moved on:
// that would wait for ever.

// isBroken says whether an entry that nobody is to adopt is of such a pair.
func isBroken(f *bpf.WireFlow) bool {
	return f.State != bpf.WirePass && f.Over == 0 && f.Verdict == 0
}

// resetBroken takes out such pairs, by the keys of their entries, and sends both sides a RST.
func (p *Plane) resetBroken(keys []bpf.WireKey) {
	for i := range keys {
		f, err := p.objects.Flow(&keys[i])
		if err != nil {
			continue // the other entry came first
		}
		pair := &Pair{plane: p, keys: [2]bpf.WireKey{keys[i], f.Rewrite.To.Reverse()}}
		pair.restore(&Meta{})
		pair.timestamps = f.Tsval != 0
		_ = pair.Bar() // what crosses from here on its numbers would not know of
		v, err := pair.Look()
		if err != nil {
			continue // half a pair: nothing crosses
		}
		pair.place(&v)
		for k := range pair.keys {
			p.objects.Delete(&pair.keys[k])
		}
		pair.sayReset(&v)
	}
}
