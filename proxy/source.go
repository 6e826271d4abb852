package proxy

import (
	"fmt"
	"net/netip"
)

// A Source is where connections to servers come from: an address of this machine,
// or that of the client. The zero Source is what the kernel chooses.
type Source struct {
	Addr   netip.Addr
	Client bool // the client's own address, which excludes the other; with a port that the kernel chooses
}

const clientSource = "client"

// MarshalText is the inverse of [Source.UnmarshalText].
func (s Source) MarshalText() ([]byte, error) {
	if s.Client {
		return []byte(clientSource), nil
	}
	return s.Addr.MarshalText()
}

// UnmarshalText reads an address, or client.
func (s *Source) UnmarshalText(text []byte) error {
	if string(text) == clientSource {
		*s = Source{Client: true}
		return nil
	}
	a, err := netip.ParseAddr(string(text))
	if err != nil {
		return fmt.Errorf("%q is no address: want one like 10.0.0.1, or client", text)
	}
	*s = Source{Addr: a}
	return nil
}

// from is the address to connect from to a server at that address, for a client;
// invalid: any.
func (s Source) from(client, server netip.Addr) (netip.Addr, error) {
	switch {
	case !s.Client:
		return s.Addr, nil
	case !client.IsValid():
		return client, fmt.Errorf("%w: it has none, it has come by a unix socket", errClientSource)
	case client.Is4() != server.Is4():
		return client, fmt.Errorf("%w %s to %s: the families differ", errClientSource, client, server)
	}
	return client, nil
}
