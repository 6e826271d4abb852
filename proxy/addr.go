package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// maxUnixPath is the longest path of a unix socket, in bytes: sun_path of
// struct sockaddr_un less its closing zero, on the system with the least room.
const maxUnixPath = 103

// Addr is where to listen or what to dial. The zero value is neither.
type Addr struct {
	Network string // "tcp" or "unix"; in configurations "systemd", "srv" or "original" too
	Address string // host:port, :port, a path or a name
}

// ParseAddr understands host:port, :port, [address]:port and unix:/path. It
// resolves nothing. A port is a number; 0 has the kernel choose one.
func ParseAddr(s string) (Addr, error) {
	const want = "want host:port, :port or unix:/path"
	if s == "" {
		return Addr{}, fmt.Errorf("address %q is empty: %s", s, want)
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		switch {
		case path == "":
			return Addr{}, fmt.Errorf("address %q names no file: want unix:/path", s)
		case strings.ContainsRune(path, 0):
			return Addr{}, fmt.Errorf("address %q: a path has no zero byte: want unix:/path", s)
		case len(path) > maxUnixPath:
			return Addr{}, fmt.Errorf("address %q: the path has %d bytes: want at most %d", s, len(path), maxUnixPath)
		}
		return Addr{Network: "unix", Address: path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		reason := err.Error()
		if ae, ok := err.(*net.AddrError); ok {
			reason = ae.Err
		}
		return Addr{}, fmt.Errorf("address %q: %s: %s", s, reason, want)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return Addr{}, fmt.Errorf("address %q: port %q is no number from 0 to 65535: %s", s, port, want)
	}
	if !validHost(host) {
		return Addr{}, fmt.Errorf("address %q: %q is neither a host name nor an IP address: %s", s, host, want)
	}
	return Addr{Network: "tcp", Address: s}, nil
}

// String is the inverse of [ParseAddr].
func (a Addr) String() string {
	switch a.Network {
	case "tcp":
		return a.Address
	case original:
		return OriginalDestination
	case "systemd":
		if a.Address == "" {
			return "systemd"
		}
	}
	return a.Network + ":" + a.Address
}

func validHost(host string) bool {
	if host == "" {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	if len(host) > 253 {
		return false
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, notOfName) {
			return false
		}
	}
	// 10.0.0.256 is no name but a mistake: there is no top-level domain of digits.
	return strings.ContainsFunc(labels[len(labels)-1], func(r rune) bool { return r < '0' || r > '9' })
}

func notOfName(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
		return false
	}
	return true
}
