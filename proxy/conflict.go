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

// Conflicts says in words how the address overlaps another one, so that it can't be listened
// at where the other is: "part of", "more of" or "the same as" it; "" if it is not certain.
// Names are not resolved.
func (a Addr) Conflicts(b Addr) string { return string(a.overlaps(b)) }

func (a Addr) overlaps(b Addr) overlap {
	a, b = a.canonical(), b.canonical()
	if a.realm() != b.realm() || strings.HasSuffix(a.Address, ":0") && a.Network == "tcp" {
		return apart
	}
	switch all, otherAll := a.everywhere(), b.everywhere(); {
	case a == b:
		return same
	case otherAll:
		return within
	case all && a.Network == "tcp": // of systemd: what others have left
		return around
	}
	return apart
}

// canonical writes the address in one way. An unspecified address of either family stands for
// all of both, as package net has it: it is left out.
func (a Addr) canonical() Addr {
	switch a.Network {
	case "unix":
		if !strings.HasPrefix(a.Address, "@") {
			a.Address = filepath.Clean(a.Address)
		}
	case "tcp":
		host, port, err := net.SplitHostPort(a.Address)
		if err != nil {
			return a
		}
		ip := parseIP(host)
		switch {
		case ip.IsUnspecified():
			host = ""
		case ip.IsValid():
			host = ip.String()
		default:
			host = strings.ToLower(host)
		}
		a.Address = net.JoinHostPort(host, port)
	}
	return a
}

// realm is what addresses that overlap have in common: the port, or the file.
func (a Addr) realm() string {
	switch a.Network {
	case "tcp":
		return a.Address[max(0, strings.LastIndexByte(a.Address, ':')):]
	case "unix":
		return a.String()
	}
	return a.Network
}

// everywhere says whether a canonical address is all that there is of its realm.
func (a Addr) everywhere() bool {
	return a.Network == "tcp" && strings.HasPrefix(a.Address, ":") || a.Network == "systemd" && a.Address == ""
}

func parseIP(host string) netip.Addr {
	ip, _ := netip.ParseAddr(host)
	return ip.Unmap()
}

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
