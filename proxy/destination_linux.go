package proxy

import (
	"net/netip"

	"github.com/spliced-io/spliced/internal/sys"
)

// originalDestination says where a connection was to go, and from where it has come.
func originalDestination(fd int) (target, peer netip.AddrPort, err error) {
	if target, err = sys.OriginalDestination(fd); err == nil {
		peer, err = sys.PeerAddr(fd)
	}
	return target, peer, err
}
