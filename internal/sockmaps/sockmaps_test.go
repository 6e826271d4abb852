package sockmaps_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/sockmaps"
)

func TestParseConn(t *testing.T) {
	c, err := sockmaps.ParseConn("[::ffff:192.0.2.1]:80-198.51.100.7:40000")
	want := sockmaps.Conn{A: netip.MustParseAddrPort("192.0.2.1:80"), B: netip.MustParseAddrPort("198.51.100.7:40000")}
	if err != nil || c != want {
		t.Errorf("%v, %v; want %v", c, err, want)
	}
	for _, m := range []sockmaps.Member{{Local: c.A, Remote: c.B}, {Local: c.B, Remote: c.A}} {
		if !c.Has(&m) {
			t.Errorf("%v has not %+v", c, m)
		}
	}
	if c.Has(&sockmaps.Member{Local: c.A, Remote: c.A}) || c.Has(&sockmaps.Member{}) {
		t.Error("has what it has not")
	}
	zoned, err := sockmaps.ParseConn("[fe80::1%eth0]:80-[fe80::2]:40000") // as ss and netstat print it
	if err != nil || !zoned.Has(&sockmaps.Member{Local: netip.MustParseAddrPort("[fe80::1]:80"), Remote: netip.MustParseAddrPort("[fe80::2]:40000")}) {
		t.Errorf("%v, %v: is not found without its zone, which the kernel does not list", zoned, err)
	}
	for _, bad := range []string{"", "-", "192.0.2.1:80", "192.0.2.1:80-", "192.0.2.1:80-host:1", "192.0.2.1-198.51.100.7", "192.0.2.1:80-198.51.100.7:99999"} {
		if _, err := sockmaps.ParseConn(bad); err == nil || !strings.Contains(err.Error(), "want two addresses with ports") {
			t.Errorf("%q: error %v", bad, err)
		}
	}
}
