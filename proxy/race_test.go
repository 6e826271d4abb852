package proxy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// found lists addresses: host=address, those of a backup after a !.
func foundAt(list ...string) (found []resolvedAddr) {
	for _, text := range list {
		rest, backup := strings.CutPrefix(text, "!")
		host, addr, _ := strings.Cut(rest, "=")
		found = append(found, resolvedAddr{addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 80), host: host, backup: backup})
	}
	return found
}

// Of the servers that are picked each is followed by an address of the other family
// that it has, and the families take turns.
func TestRivals(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		found    []resolvedAddr
		attempts int
		out      string // an address that can't be used
		want     string // the order of trial
	}{
		"one family":        {found: foundAt("a=::1", "a=::2"), attempts: 3, want: "::1 ::2"},
		"both":              {found: foundAt("a=::1", "a=10.0.0.1"), attempts: 3, want: "::1 10.0.0.1"},
		"one attempt":       {found: foundAt("a=::1", "a=10.0.0.1"), attempts: 1, want: "::1 10.0.0.1"},
		"in turn":           {found: foundAt("a=::1", "a=::2", "a=10.0.0.1", "a=10.0.0.2"), attempts: 3, want: "::1 10.0.0.1 ::2 10.0.0.2"},
		"IPv4 is preferred": {found: foundAt("a=10.0.0.1", "a=::1"), attempts: 3, want: "10.0.0.1 ::1"},
		"the first is out":  {found: foundAt("a=::1", "a=10.0.0.1"), attempts: 3, out: "::1", want: "10.0.0.1"},
		"the other is out":  {found: foundAt("a=::1", "a=10.0.0.1"), attempts: 3, out: "10.0.0.1", want: "::1"},
		"of each target":    {found: foundAt("a=::1", "b=::2", "b=10.0.0.2", "a=10.0.0.1"), attempts: 3, want: "::1 10.0.0.1 ::2 10.0.0.2"},
		"of other targets":  {found: foundAt("a=::1", "b=10.0.0.2"), attempts: 3, want: "::1 10.0.0.2"},
		"another has IPv4":  {found: foundAt("a=10.0.0.1", "b=::2", "b=10.0.0.2"), attempts: 3, want: "10.0.0.1 ::2 10.0.0.2"},
		"backups":           {found: foundAt("a=::1", "a=10.0.0.1", "!b=::2", "!b=10.0.0.2"), attempts: 3, want: "::1 10.0.0.1 ::2 10.0.0.2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := unrun(Upstream{Balance: First})
			u.config.Attempts = tc.attempts
			e := &entry{target: Target{Address: "name:80", Weight: 1}}
			u.entries = []*entry{e}
			u.resolved(e, tc.found)
			for _, m := range u.members {
				m.draining = m.addr.Addr().String() == tc.out
			}
			picked, err := u.pick(pickKey{source: netip.MustParseAddr("192.0.2.1")})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range picked {
				got = append(got, m.addr.Addr().String())
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("got %s, want %s", s, tc.want)
			}
		})
	}
}

// The targets of SRV records come in any order, which changes neither what is found nor
// the family that is preferred.
func TestOrder(t *testing.T) {
	t.Parallel()
	want := foundAt("a=10.0.0.1", "b=::2", "b=10.0.0.2", "!c=::3")
	for _, list := range [][]string{
		{"a=10.0.0.1", "b=::2", "b=10.0.0.2", "!c=::3"},
		{"b=::2", "b=10.0.0.2", "a=10.0.0.1", "!c=::3"},
	} {
		found := foundAt(list...)
		if order(found); !slices.Equal(found, want) {
			t.Errorf("%s: got %s, want %s", list, joinAddrs(found), joinAddrs(want))
		}
	}
}
