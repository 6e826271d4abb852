package wire_test

import (
	"errors"
	"testing"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// The addresses of D, which is behind C: A — B — C — D.
const (
	addrCD  = "10.86.1.2"
	addrD   = "10.86.1.1"
	addr6CD = "fd86:1::2"
	addr6D  = "fd86:1::1"
)

// behind adds D to a chain, and has C forward to it.
func behind(t *testing.T, c *testnet.Chain) *testnet.Namespace {
	t.Helper()
	d, err := testnet.New("d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	err = errors.Join(
		testnet.Veth(c.C, "tod", d, "toc"),
		c.C.Sysctl("net.ipv4.ip_forward", "1"),
		c.C.Sysctl("net.ipv6.conf.all.forwarding", "1"),
		c.C.AddAddr("tod", addrCD+"/24"), d.AddAddr("toc", addrD+"/24"),
		c.C.AddAddr("tod", addr6CD+"/64"), d.AddAddr("toc", addr6D+"/64"),
		d.AddRoute("0.0.0.0/0", addrCD), c.B.AddRoute("10.86.1.0/24", testnet.AddrC),
		d.AddRoute("::/0", addr6CD), c.B.AddRoute("fd86:1::/64", testnet.Addr6C),
	)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A router behind B that says "too big" is heard by the sender, whom it does not
// know.
func TestPathShrinks(t *testing.T) {
	for _, tc := range []struct{ name, front, back string }{
		{"v4", testnet.AddrBA, addrD},
		{"v6", testnet.Addr6BA, addr6D},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newChain(t)
			d := behind(t, c)
			b := &bench{}
			b.client, b.a = connect(t, c.A, c.B, tc.front)
			b.b, b.server = connect(t, c.B, d, tc.back)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			handOver(t, pair)
			carry(t, b.client, b.server, 1<<20)
			if err := c.C.SetMTU("tod", 1300); err != nil {
				t.Fatal(err)
			}
			carry(t, b.client, b.server, 4<<20)
			carry(t, b.server, b.client, 1<<20)
			v, err := pair.Look()
			if err != nil {
				t.Fatal(err)
			}
			if v.Flows[1].Told == 0 {
				t.Error("no message was translated")
			}
			if v.Flows[0].Told > 0 {
				t.Error("the server was told of what it did not send")
			}
			pair.Abort()
		})
	}
}
