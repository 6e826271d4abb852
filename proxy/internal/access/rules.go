package access

import (
	"fmt"
	"net/netip"
)

// Rules say which addresses may connect: of the prefixes that have an address,
// the longest decides. The zero value lets everybody in.
type Rules struct {
	table  Table[bool]
	others bool // may those connect who are in no prefix
	some   bool
}

// NewRules makes rules of prefixes. With some to allow, and no other rule for
// an address, it is refused; with none to allow it is let in. Clients of unix
// sockets have no address and always come in: their file has permissions.
func NewRules(allow, deny []netip.Prefix) (Rules, error) {
	var entries []Entry[bool]
	for _, p := range allow {
		entries = append(entries, Entry[bool]{p, true})
	}
	for _, p := range deny {
		entries = append(entries, Entry[bool]{p, false})
	}
	table, err := NewTable(entries)
	if err != nil {
		return Rules{}, fmt.Errorf("allow and deny: %w", err)
	}
	return Rules{table: table, others: len(allow) == 0, some: len(entries) > 0}, nil
}

// Allow says whether addr may connect.
func (r *Rules) Allow(addr netip.Addr) bool {
	if !r.some || !addr.IsValid() {
		return true
	}
	if allowed, ok := r.table.Lookup(addr); ok {
		return allowed
	}
	return r.others
}
