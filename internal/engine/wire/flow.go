package wire

import (
	"errors"
	"net/netip"
)

// ErrInUse means that another process has an instance of that name.
var ErrInUse = errors.New("the instance is in use by another process")

// A Flow names a pair by the addresses of its two connections, as packets have them: without
// zones.
type Flow struct {
	A      netip.AddrPort `json:"a"`       // a's
	ALocal netip.AddrPort `json:"a_local"` // this machine's towards a
	BLocal netip.AddrPort `json:"b_local"`
	B      netip.AddrPort `json:"b"`
}

// NoteSize is how many bytes the note of a pair may have.
const NoteSize = 136

// A TableID tells the table of an instance from all others of this machine. The zero value is
// that of none.
type TableID [2]uint32
