package access

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// debtSize is an address and how far ahead of its time a client is.
const debtSize = 16 + 8

// Debts are the clients of a [Rate] that have come more often than on average, those
// seen last first, in at most so many bytes: for the Rate of another process. A client
// that owes nothing need not be known.
func (r *Rate) Debts(most int) []byte { return r.debts(most, time.Now()) }

func (r *Rate) debts(most int, at time.Time) []byte {
	if r == nil || r.every == 0 {
		return nil
	}
	now := at.Sub(r.epoch)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.clients == nil {
		return nil
	}
	var b []byte
	for v := r.seen.next; v != &r.seen && len(b)+debtSize <= most; v = v.next {
		if v.due > now {
			a := v.addr.As16()
			b = binary.BigEndian.AppendUint64(append(b, a[:]...), uint64(v.due-now))
		}
	}
	return b
}

// Owe notes what [Rate.Debts] of another process has said. What is no debt is left
// out: no client can owe more than its burst.
func (r *Rate) Owe(debts []byte) { r.owe(debts, time.Now()) }

func (r *Rate) owe(debts []byte, at time.Time) {
	if r == nil || r.every == 0 {
		return
	}
	now := at.Sub(r.epoch)
	r.mu.Lock()
	defer r.mu.Unlock()
	debts = debts[:len(debts)/debtSize*debtSize]
	for len(debts) > 0 { // those seen last come last here
		d := debts[len(debts)-debtSize:]
		debts = debts[:len(debts)-debtSize]
		due := time.Duration(binary.BigEndian.Uint64(d[16:]))
		if due > 0 && due <= r.slack+r.every {
			r.visit(Client(netip.AddrFrom16([16]byte(d[:16])).Unmap())).due = now + due
		}
	}
}
