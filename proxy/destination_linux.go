package proxy

import (
	"net/netip"

	"github.com/spliced-io/spliced/internal/sys"
)

func originalDestination(fd int) (netip.AddrPort, error) { return sys.OriginalDestination(fd) }
