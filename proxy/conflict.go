package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
)

// An overlap is what one address to listen at has of another.
type overlap string

// The overlaps, in words.
const (
	apart  overlap = ""
	within overlap = "part of"
	around overlap = "more of"
	same   overlap = "the same as"
)

// Conflicts says in words how the address overlaps another one, so that only one of the two
// can be listened at: "part of", "more of" or "the same as" it; "" if it is not certain.
// Names are not resolved.
func (a Addr) Conflicts(b Addr) string { return string(a.overlaps(b)) }

func (a Addr) overlaps(b Addr) overlap {
	if a.Network != b.Network {
		return apart
	}
	switch a.Network {
	case "unix":
		return parts(false, false, filepath.Clean(a.Address) == filepath.Clean(b.Address))
	case "systemd":
		return parts(a.Address == "", b.Address == "", a.Address == b.Address)
	case "tcp":
		host, port, err := net.SplitHostPort(a.Address)
		other, otherPort, errOther := net.SplitHostPort(b.Address)
		if errors.Join(err, errOther) != nil || port != otherPort || port == "0" {
			return apart
		}
		ip, otherIP := parseIP(host), parseIP(other)
		equal := ip == otherIP
		if !ip.IsValid() || !otherIP.IsValid() {
			equal = strings.EqualFold(host, other)
		}
		return parts(everywhere(host, ip), everywhere(other, otherIP), equal)
	}
	return apart
}

// parts is the overlap of two, each of which may be all that there is.
func parts(all, otherAll, equal bool) overlap {
	switch {
	case equal || all && otherAll:
		return same
	case otherAll:
		return within
	case all:
		return around
	}
	return apart
}

func parseIP(host string) netip.Addr {
	ip, _ := netip.ParseAddr(host)
	return ip.Unmap()
}

// everywhere: an unspecified address of either family stands for all of both, as package
// net has it.
func everywhere(host string, ip netip.Addr) bool { return host == "" || ip.IsUnspecified() }

// oneMachine complains about an address that is none of a machine, by which nobody can be
// connected with; port is what follows it in the text, for an example.
func oneMachine(ip netip.Addr, port string) error {
	switch ip = ip.Unmap(); {
	case ip.IsMulticast():
		return errors.New("a group has no connections: want the address of one machine")
	case ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return errors.New("all machines at once have no connections: want the address of one")
	case ip.Is6() && ip.IsLinkLocalUnicast() && ip.Zone() == "":
		example := ip.WithZone("eth0").String()
		if port != "" {
			example = net.JoinHostPort(example, port)
		}
		return fmt.Errorf("want its interface too, like %s", example)
	}
	return nil
}

// oneMachine is that of the address, if it has one.
func (a Addr) oneMachine() error {
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil || a.Network != "tcp" {
		return nil
	}
	if err := oneMachine(parseIP(host), port); err != nil {
		return fmt.Errorf("address %q: %w", a.Address, err)
	}
	return nil
}
