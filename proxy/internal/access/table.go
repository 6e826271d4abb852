package access

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// An Entry of a [Table].
type Entry[V any] struct {
	Prefix netip.Prefix
	Value  V
}

// A Table finds the longest prefix that an address is in. The zero value has
// none. It is built once, and looked up in the logarithm of its size.
type Table[V any] struct {
	// spans cover both address families whole, in ascending order, each up to
	// the next.
	spans []span[V]
}

// A span is of addresses with the same longest prefix.
type span[V any] struct {
	first netip.Addr
	value V
	in    bool // some prefix
}

// NewTable makes a table. An address with bits beyond its prefix stands for its
// network. The same prefix twice is an error.
func NewTable[V any](entries []Entry[V]) (Table[V], error) {
	sorted := slices.Clone(entries)
	for i, e := range sorted {
		p := unmapped(e.Prefix)
		if !p.IsValid() {
			return Table[V]{}, fmt.Errorf("prefix %v is none", e.Prefix)
		}
		sorted[i].Prefix = p
	}
	// An outer prefix comes before those inside it.
	slices.SortFunc(sorted, func(a, b Entry[V]) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	b := builder[V]{spans: []span[V]{{first: netip.IPv4Unspecified()}}}
	for i, e := range sorted {
		if i > 0 && e.Prefix == sorted[i-1].Prefix {
			return Table[V]{}, fmt.Errorf("prefix %s is there twice: want it once", e.Prefix)
		}
		if e.Prefix.Addr().Is6() {
			b.six()
		}
		b.closeBefore(e.Prefix.Addr())
		b.begin(span[V]{first: e.Prefix.Addr(), value: e.Value, in: true})
		b.open = append(b.open, e)
	}
	b.six()
	b.closeBefore(netip.Addr{})
	return Table[V]{b.spans}, nil
}

// Lookup returns the value of the longest prefix that has addr.
func (t Table[V]) Lookup(addr netip.Addr) (value V, ok bool) {
	addr = addr.Unmap().WithZone("")
	i, found := slices.BinarySearchFunc(t.spans, addr, func(s span[V], a netip.Addr) int { return s.first.Compare(a) })
	if !found {
		i-- // the one that begins before
	}
	if i < 0 || !addr.IsValid() {
		return value, false
	}
	return t.spans[i].value, t.spans[i].in
}

// unmapped returns the network of p; that of IPv4 addresses mapped into IPv6 is
// IPv4's.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return netip.PrefixFrom(p.Addr().WithZone(""), p.Bits()).Masked()
}

// A builder goes through the addresses in ascending order. It knows the prefixes
// that it is inside of, the innermost last.
type builder[V any] struct {
	spans []span[V]
	open  []Entry[V]
	isSix bool
}

// begin starts a span, in place of one of no length.
func (b *builder[V]) begin(s span[V]) {
	if last := len(b.spans) - 1; b.spans[last].first == s.first {
		b.spans[last] = s
		return
	}
	b.spans = append(b.spans, s)
}

// closeBefore leaves the prefixes that end before addr: all, if that is invalid.
func (b *builder[V]) closeBefore(addr netip.Addr) {
	for n := len(b.open); n > 0; n = len(b.open) {
		inner := b.open[n-1].Prefix
		if addr.IsValid() && inner.Contains(addr) {
			return
		}
		b.open = b.open[:n-1]
		next := last(inner).Next()
		if !next.IsValid() {
			continue // the end of the family
		}
		s := span[V]{first: next}
		if n > 1 && b.open[n-2].Prefix.Contains(next) {
			s.value, s.in = b.open[n-2].Value, true
		}
		b.begin(s)
	}
}

// six goes on to the first IPv6 address.
func (b *builder[V]) six() {
	if !b.isSix {
		b.isSix = true
		b.closeBefore(netip.Addr{})
		b.begin(span[V]{first: netip.IPv6Unspecified()})
	}
}

// last returns the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}
