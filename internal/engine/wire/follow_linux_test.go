package wire_test

import (
	"context"
	"errors"
	"testing"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

const (
	server85   = "10.85.0.7" // of PoolC: C has it whatever link it comes by
	secondBC   = "10.83.3.2" // B's on a second link to C
	secondC    = "10.83.3.1"
	secondLink = "toc2"
)

// spliceTo splices a pair of A and a server of C's pool.
func spliceTo(t *testing.T, c *testnet.Chain) (*bench, *wire.Plane, *wire.Pair) {
	t.Helper()
	b := place{"", onA, onC, testnet.AddrBA, server85}.open(t, c)
	p := openPlane(t, c, wire.Config{})
	pair := consider(t, c, p, b, func() {})
	handOver(t, pair)
	both(t, b)
	return b, p, pair
}

func both(t *testing.T, b *bench) {
	t.Helper()
	carry(t, b.client, b.server, 1000)
	carry(t, b.server, b.client, 100000)
}

func run(t *testing.T, ns *testnet.Namespace, args ...string) {
	t.Helper()
	if err := ns.Run(context.Background(), "", "ip", args...); err != nil {
		t.Fatal(err)
	}
}

// A route that leads by another interface now is followed, both ways.
func TestRouteMoves(t *testing.T) {
	c := newChain(t)
	b, p, pair := spliceTo(t, c)
	if err := errors.Join(
		testnet.Veth(c.B, secondLink, c.C, "tob2"),
		c.B.AddAddr(secondLink, secondBC+"/24"), c.C.AddAddr("tob2", secondC+"/24"),
	); err != nil {
		t.Fatal(err)
	}
	// More exact than the chain's own.
	if err := errors.Join(c.C.AddRoute(testnet.AddrBC+"/32", secondBC), c.B.AddRoute("10.85.0.0/24", secondC)); err != nil {
		t.Fatal(err)
	}
	before, err := pair.Look()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "packets leave by the second link", func() bool {
		v, err := pair.Look()
		return err == nil && v.Flows[0].Rewrite.Ifindex != before.Flows[0].Rewrite.Ifindex
	})
	if n := len(p.Attached()); n != 3 {
		t.Errorf("the program is on %d interfaces, want 3", n)
	}
	if err := c.C.Down(testnet.LinkCB); err != nil { // the first one
		t.Fatal(err)
	}
	both(t, b)
	pair.Abort()
}

// A rule alone can have packets leave by another interface.
func TestRuleMoves(t *testing.T) {
	const table = "83"
	for _, tc := range []struct {
		pl                 place
		family             string
		here, there, bound string // addresses on the second link, and how long their prefix is
		server, self       string // of the first link: C's, and B's
	}{
		{places()[0], "-4", secondBC, secondC, "/24", testnet.AddrC, testnet.AddrBC},
		{places()[1], "-6", "fd83:3::2", "fd83:3::1", "/64", testnet.Addr6C, testnet.Addr6BC},
	} {
		t.Run(tc.pl.name, func(t *testing.T) {
			c := newChain(t)
			if err := errors.Join(
				testnet.Veth(c.B, secondLink, c.C, "tob2"),
				c.B.AddAddr(secondLink, tc.here+tc.bound), c.C.AddAddr("tob2", tc.there+tc.bound),
			); err != nil {
				t.Fatal(err)
			}
			run(t, c.B, tc.family, "route", "add", tc.server, "via", tc.there, "table", table)
			run(t, c.C, tc.family, "route", "add", tc.self, "via", tc.here, "table", table)
			b := tc.pl.open(t, c)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			handOver(t, pair)
			both(t, b)
			before, err := pair.Look()
			if err != nil {
				t.Fatal(err)
			}
			run(t, c.C, tc.family, "rule", "add", "to", tc.self, "lookup", table)
			run(t, c.B, tc.family, "rule", "add", "to", tc.server, "lookup", table)
			eventually(t, "packets leave by the second link", func() bool {
				v, err := pair.Look()
				return err == nil && v.Flows[0].Rewrite.Ifindex != before.Flows[0].Rewrite.Ifindex
			})
			both(t, b)
			pair.Abort()
		})
	}
}

// An interface that gets another name is the same.
func TestInterfaceRenamed(t *testing.T) {
	c := newChain(t)
	b, _, pair := spliceTo(t, c)
	run(t, c.B, "link", "set", testnet.LinkBC, "name", "other")
	both(t, b)
	pair.Abort()
}

// An interface that goes takes its routes along: the flow waits, as a socket does, and
// goes on by the one that comes instead.
func TestInterfaceReplaced(t *testing.T) {
	c := newChain(t)
	b, p, pair := spliceTo(t, c)
	run(t, c.B, "link", "del", testnet.LinkBC)
	eventually(t, "the program is on one interface", func() bool { return len(p.Attached()) == 1 })
	if err := errors.Join(
		testnet.Veth(c.B, testnet.LinkBC, c.C, testnet.LinkCB),
		c.B.AddAddr(testnet.LinkBC, testnet.AddrBC+"/24"), c.C.AddAddr(testnet.LinkCB, testnet.AddrC+"/24"),
		c.B.AddRoute(testnet.PoolC, testnet.AddrC),
	); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the program is on the new interface", func() bool { return len(p.Attached()) == 2 })
	both(t, b)
	pair.Abort()
}

// Each packet goes to the address that its neighbour has then.
func TestNeighbourChanges(t *testing.T) {
	c := newChain(t)
	b, _, pair := spliceTo(t, c)
	const mac = "02:00:00:00:0c:0c"
	run(t, c.C, "link", "set", testnet.LinkCB, "address", mac)
	run(t, c.B, "neigh", "replace", testnet.AddrC, "lladdr", mac, "dev", testnet.LinkBC)
	both(t, b)
	pair.Abort()
}
