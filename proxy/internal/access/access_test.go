package access

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTable(t *testing.T) {
	t.Parallel()
	var entries []Entry[string]
	for _, p := range []string{
		"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "10.2.0.0/15", "192.0.2.0/24", "255.255.255.255/32",
		"2001:db8::/32", "2001:db8:1::/48", "::/128", "::ffff:203.0.113.0/120",
	} {
		entries = append(entries, Entry[string]{netip.MustParsePrefix(p), p})
	}
	slices.Reverse(entries)
	table, err := NewTable(entries)
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{
		"1.2.3.4": "0.0.0.0/0", "9.255.255.255": "0.0.0.0/0", "10.0.0.0": "10.0.0.0/8", "10.1.2.2": "10.1.0.0/16",
		"10.1.2.3": "10.1.2.3/32", "10.1.2.4": "10.1.0.0/16", "10.1.255.255": "10.1.0.0/16", "10.2.0.0": "10.2.0.0/15",
		"10.3.255.255": "10.2.0.0/15", "10.4.0.0": "10.0.0.0/8", "11.0.0.0": "0.0.0.0/0", "192.0.2.255": "192.0.2.0/24",
		"255.255.255.255": "255.255.255.255/32", "255.255.255.254": "0.0.0.0/0", "::ffff:10.1.2.3": "10.1.2.3/32",
		"203.0.113.9": "::ffff:203.0.113.0/120", "::": "::/128", "::1": "", "2001:db8::1": "2001:db8::/32",
		"2001:db8:1::1": "2001:db8:1::/48", "2001:db8:2::": "2001:db8::/32", "2001:db9::": "",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": "", "fe80::1%eth0": "",
	} {
		if got, ok := table.Lookup(netip.MustParseAddr(addr)); got != want || ok != (want != "") {
			t.Errorf("%s is in %q (%t), want %q", addr, got, ok, want)
		}
	}
	if _, ok := table.Lookup(netip.Addr{}); ok {
		t.Error("no address is in a prefix")
	}
	if _, ok := (Table[string]{}).Lookup(netip.MustParseAddr("::1")); ok {
		t.Error("the zero value has a prefix")
	}
}

func TestTableRefuses(t *testing.T) {
	t.Parallel()
	twice := []Entry[int]{{netip.MustParsePrefix("10.0.0.1/8"), 1}, {netip.MustParsePrefix("10.0.0.0/8"), 2}}
	if _, err := NewTable(twice); err == nil || !strings.Contains(err.Error(), "10.0.0.0/8 is there twice") {
		t.Errorf("the same network twice: %v", err)
	}
	if _, err := NewTable([]Entry[int]{{}}); err == nil {
		t.Error("no prefix is taken for one")
	}
}

// The table finds what looking at every prefix finds.
func TestTableModel(t *testing.T) {
	t.Parallel()
	// Few bits that differ, so that prefixes and addresses meet.
	four := rapid.Custom(func(t *rapid.T) netip.Addr {
		v := rapid.Uint32().Draw(t, "bits") & rapid.SampledFrom([]uint32{0xff000003, 0xffffffff, 0x80000000}).Draw(t, "mask")
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, v)))
	})
	six := rapid.Custom(func(t *rapid.T) netip.Addr {
		var a [16]byte
		for _, i := range []int{0, 7, 15} {
			a[i] = rapid.SampledFrom([]byte{0, 1, 0x80, 0xff}).Draw(t, "byte")
		}
		return netip.AddrFrom16(a)
	})
	addr := rapid.OneOf(four, six)
	rapid.Check(t, func(t *rapid.T) {
		model := map[netip.Prefix]int{}
		var entries []Entry[int]
		for i, a := range rapid.SliceOfN(addr, 0, 20).Draw(t, "addresses") {
			p, err := a.Prefix(rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := model[p]; !ok {
				model[p] = i
				entries = append(entries, Entry[int]{p, i})
			}
		}
		table, err := NewTable(entries)
		if err != nil {
			t.Fatal(err)
		}
		look := rapid.SliceOfN(addr, 1, 20).Draw(t, "looked up")
		for p := range model { // the edges
			look = append(look, p.Addr(), last(p))
			for _, a := range []netip.Addr{p.Addr().Prev(), last(p).Next()} {
				if a.IsValid() {
					look = append(look, a)
				}
			}
		}
		for _, a := range look {
			best, want := -1, 0
			for p, i := range model {
				if p.Contains(a.Unmap()) && p.Bits() > best {
					best, want = p.Bits(), i
				}
			}
			got, ok := table.Lookup(a)
			if ok != (best >= 0) || ok && got != want {
				t.Fatalf("%s: %d, %t; want %d, %t; in %v", a, got, ok, want, best >= 0, entries)
			}
		}
	})
}

func prefixes(t *testing.T, list ...string) (p []netip.Prefix) {
	t.Helper()
	for _, s := range list {
		if !strings.Contains(s, "/") {
			addr := netip.MustParseAddr(s)
			p = append(p, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func TestRules(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		allow, deny []string
		in, out     []string
	}{
		"none":          {nil, nil, []string{"192.0.2.1", "::1"}, nil},
		"deny":          {nil, []string{"10.0.0.0/8"}, []string{"11.0.0.1", "::1"}, []string{"10.1.1.1", "::ffff:10.1.1.1"}},
		"allow":         {[]string{"10.0.0.0/8", "::1"}, nil, []string{"10.1.1.1", "::1"}, []string{"11.0.0.1", "::2"}},
		"allow in deny": {[]string{"10.1.0.0/16"}, []string{"10.0.0.0/8"}, []string{"10.1.1.1"}, []string{"10.2.1.1", "11.0.0.1"}},
		"deny in allow": {[]string{"10.0.0.0/8"}, []string{"10.1.0.0/16"}, []string{"10.2.1.1"}, []string{"10.1.1.1", "11.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := NewRules(prefixes(t, tt.allow...), prefixes(t, tt.deny...))
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range tt.in {
				if !r.Allow(netip.MustParseAddr(a)) {
					t.Errorf("%s is kept out", a)
				}
			}
			for _, a := range tt.out {
				if r.Allow(netip.MustParseAddr(a)) {
					t.Errorf("%s is let in", a)
				}
			}
			if !r.Allow(netip.Addr{}) {
				t.Error("a unix socket's client is kept out")
			}
		})
	}
	if _, err := NewRules(prefixes(t, "10.0.0.0/8"), prefixes(t, "10.0.0.0/8")); err == nil {
		t.Error("a network is allowed and denied")
	}
	var zero Rules
	if !zero.Allow(netip.MustParseAddr("192.0.2.1")) {
		t.Error("the zero value keeps out")
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	r := NewRate(10, 3)
	now := r.epoch.Add(time.Hour)
	take := func(addr netip.Addr, want ...bool) {
		t.Helper()
		for i, w := range want {
			if got := r.take(addr, now); got != w {
				t.Errorf("at %v, time %d: %t, want %t", now.Sub(r.epoch), i+1, got, w)
			}
		}
	}
	take(a, true, true, true, false, false)
	take(b, true, true, true, false)
	now = now.Add(99 * time.Millisecond)
	take(a, false)
	now = now.Add(time.Millisecond)
	take(a, true, false)
	now = now.Add(time.Second)
	take(a, true, true, true, false)
	// Refused attempts cost nothing.
	now = now.Add(100 * time.Millisecond)
	take(a, true, false)

	for _, free := range []*Rate{nil, NewRate(0, 3), new(Rate)} {
		for range 100 {
			if !free.Take(a) {
				t.Fatal("a limit where there is none")
			}
		}
	}
	if !r.take(netip.Addr{}, now) {
		t.Error("a unix socket's client is limited")
	}
}

// IPv6 clients have many addresses.
func TestClient(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%lo": "fe80::",
	} {
		if got := Client(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if Client(netip.Addr{}).IsValid() {
		t.Error("no address is a client")
	}
}

// A flood of addresses takes no more memory, and who keeps coming is known.
func TestRateForgets(t *testing.T) {
	t.Parallel()
	r := NewRate(0.001, 1)
	r.most = 100
	now := r.epoch
	regular := netip.MustParseAddr("198.51.100.1")
	for i := range 10_000 {
		if got := r.take(regular, now); got != (i == 0) {
			t.Fatalf("after %d others: %t", i, got)
		}
		other := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		if !r.take(other, now) {
			t.Fatalf("other %d is refused", i)
		}
	}
	if n := len(r.clients); n != r.most {
		t.Errorf("%d clients are known, want %d", n, r.most)
	}
	ring := 0
	for v := r.seen.next; v != &r.seen; v = v.next {
		if ring++; r.clients[v.addr] != v || v.next.prev != v {
			t.Fatalf("the ring is broken at %v", v.addr)
		}
	}
	if ring != r.most {
		t.Errorf("%d in the ring", ring)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			entries := make([]Entry[bool], n)
			for i := range entries {
				entries[i] = Entry[bool]{netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 0}), 24), true}
			}
			table, err := NewTable(entries)
			if err != nil {
				b.Fatal(err)
			}
			for i := 0; b.Loop(); i++ {
				table.Lookup(netip.AddrFrom4([4]byte{1, byte(i >> 8), byte(i), 9}))
			}
		})
	}
}
