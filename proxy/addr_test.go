package proxy

import (
	"net"
	"strings"
	"testing"
)

func TestParseAddr(t *testing.T) {
	for _, tc := range []struct{ in, network, address, err string }{
		{in: "127.0.0.1:80", network: "tcp", address: "127.0.0.1:80"},
		{in: ":0", network: "tcp", address: ":0"},
		{in: ":65535", network: "tcp", address: ":65535"},
		{in: "[::1]:80", network: "tcp", address: "[::1]:80"},
		{in: "[fe80::1%eth0]:80", network: "tcp", address: "[fe80::1%eth0]:80"},
		{in: "db.example:5432", network: "tcp", address: "db.example:5432"},
		{in: "unix:/run/x", network: "unix", address: "/run/x"},
		{in: "unix:x", network: "unix", address: "x"},
		{in: "unix:@name", network: "unix", address: "@name"},
		{in: "", err: "empty"},
		{in: "unix:", err: "names no file"},
		{in: "unix:/" + strings.Repeat("x", 200), err: "at most"},
		{in: "unix:/a\x00b", err: "zero byte"},
		{in: "80", err: "missing port"},
		{in: "host", err: "missing port"},
		{in: "host:", err: "port \"\""},
		{in: "host:http", err: "port \"http\""},
		{in: "host:65536", err: "port \"65536\""},
		{in: "host:-1", err: "port \"-1\""},
		{in: "host:080", err: "port \"080\""},
		{in: "::1:80", err: "too many colons"},
		{in: "http://host:80", err: "too many colons"},
		{in: "ho st:80", err: "neither a host name"},
		{in: "10.0.0.256:80", err: "neither a host name"},
		{in: "10.0.1:80", err: "neither a host name"},
		{in: "a..b:80", err: "neither a host name"},
		{in: ".b:80", err: "neither a host name"},
		{in: ".:80", err: "neither a host name"},
		{in: strings.Repeat("a", 64) + ".b:80", err: "neither a host name"},
		{in: "4b.10:80", err: "neither a host name"},
		{in: "10.4b:80", network: "tcp", address: "10.4b:80"},
		{in: "b.example.:80", network: "tcp", address: "b.example.:80"},
		{in: "[nonsense]:80", network: "tcp", address: "[nonsense]:80"},
		{in: "[1:2]:80", err: "neither a host name"},
		{in: "/run/x", err: "missing port"},
	} {
		got, err := ParseAddr(tc.in)
		switch {
		case tc.err != "":
			if err == nil || !strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), "want ") {
				t.Errorf("ParseAddr(%q): %v, want an error with %q that says what would be right", tc.in, err, tc.err)
			}
		case err != nil || got != Addr{tc.network, tc.address}:
			t.Errorf("ParseAddr(%q) = %v, %v; want %s %s", tc.in, got, err, tc.network, tc.address)
		case got.String() != tc.in:
			t.Errorf("ParseAddr(%q).String() = %q", tc.in, got)
		}
	}
}

func FuzzParseAddr(f *testing.F) {
	for _, s := range []string{"127.0.0.1:80", ":0", "[::1]:80", "unix:/x", "unix:", "", "[", "a:b:c", "h:99999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddr(s)
		if err != nil {
			if a != (Addr{}) || !strings.Contains(err.Error(), "want ") {
				t.Errorf("ParseAddr(%q) = %v, %v", s, a, err)
			}
			return
		}
		if again, err := ParseAddr(a.String()); err != nil || again != a {
			t.Errorf("ParseAddr(%q) = %v, and that again %v, %v", s, a, again, err)
		}
		switch a.Network {
		case "unix":
			if len(a.Address) == 0 || len(a.Address) > maxUnixPath {
				t.Errorf("path of %d bytes", len(a.Address))
			}
		case "tcp":
			if _, _, err := net.SplitHostPort(a.Address); err != nil {
				t.Errorf("ParseAddr(%q): %v", s, err)
			}
		default:
			t.Errorf("network %q", a.Network)
		}
	})
}
