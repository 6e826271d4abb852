package engine_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A client that leaves it to routers to divide its packets, and a router in front of B that does: B's stack puts the
// parts together for sockets. So such a connection is not handed over, and one that was gets its sockets back, also by the next process
// of an instance.
func TestWireFragments(t *testing.T) {
	const size = 8 << 20
	for _, tc := range []struct {
		name   string
		wired  bool // when the way becomes narrow
		killed bool // then
		own    bool // the way is B's to the server
	}{
		{"before", false, false, false},
		{"on the way to B", true, false, false},
		{"on the way to B, of nobody's", true, true, false},
		{"on the way from B", true, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := wireChain(t)
			d := before(t, c)
			root := testnet.BPFFS(t)
			spec := relaySpec{
				Listen: testnet.AddrBA + ":0", Target: serve(t, c.C, testnet.AddrC, echoStream), Kind: uint8(engine.Wire),
				Policy: engine.WirePolicy{Instance: "test", Root: root},
			}
			narrow := func() {
				t.Helper()
				var err error
				if tc.own {
					err = errors.Join(c.B.SetMTU(testnet.LinkBC, 1300), c.C.SetMTU(testnet.LinkCB, 1300))
				} else {
					err = c.A.Run(t.Context(), "", "ip", "route", "replace", testnet.AddrBA+"/32", "dev", testnet.LinkAB, "mtu", "lock", "1300")
				}
				if err != nil {
					t.Error(err)
				}
			}
			r := startRelay(t, c.B, spec)
			r.adopted(t)
			if !tc.wired {
				narrow()
			}
			conn := dialRelay(t, d, r)
			n := int64(0)
			if tc.wired {
				n = pingUntilWire(t, r, conn)
				within(t, wirePatience, "the sockets to go", func() bool { return sockets(t, c.B) == 0 })
			}
			if tc.killed {
				r.kill(t)
			}
			if tc.wired {
				narrow()
			} else {
				within(t, wirePatience, "the program sees a fragment", func() bool {
					exchange(t, conn, make([]byte, 5000))
					n += 5000
					return r.stats(t).Refused != "no-bytes"
				})
			}
			var wg sync.WaitGroup
			wg.Go(func() { thereAndBack(t, conn, 3, size, nil) })
			if tc.killed {
				untilDivided(t, wire.Config{Instance: "test", Root: root})
				r = startRelay(t, c.B, spec)
				if n := r.adopted(t); n != 1 {
					t.Errorf("adopted %d, want 1", n)
				}
			}
			wg.Wait()
			conn.Close()
			res := r.result(t)
			wantEOF(t, res, n+size, n+size)
			// From before on: the first fragment may be seen a moment after the switch.
			if res.Refused != "wire-fragments" || res.Wire.Returned != res.Wire.Switched || tc.wired && !res.Wire.Switched || res.Engine == "wire" {
				t.Errorf("%+v, want the sockets in the end, for wire-fragments", res)
			}
			r.end()
			if err := wire.Purge(wire.Config{Instance: "test", Root: root}); err != nil {
				t.Error(err)
			}
		})
	}
}

// untilDivided waits until the program has seen a fragment.
func untilDivided(t *testing.T, config wire.Config) {
	t.Helper()
	table, err := wire.OpenTable(config)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	within(t, wirePatience, "a fragment", func() bool {
		flows, err := table.Flows()
		if err != nil || len(flows) != 1 {
			t.Fatal(len(flows), err)
		}
		v, err := flows[0].Look()
		return err == nil && v.Divided
	})
}

// before adds D to a chain, before A, which forwards for it. D's packets may be divided.
func before(t *testing.T, c *testnet.Chain) *testnet.Namespace {
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
	const addrA, addrD = "10.86.1.2", "10.86.1.1"
	err = errors.Join(
		testnet.Veth(c.A, "tod", d, "toa"),
		c.A.Sysctl("net.ipv4.ip_forward", "1"),
		c.A.AddAddr("tod", addrA+"/24"), d.AddAddr("toa", addrD+"/24"),
		d.AddRoute("0.0.0.0/0", addrA), c.B.AddRoute("10.86.1.0/24", testnet.AddrA),
		d.Sysctl("net.ipv4.ip_no_pmtu_disc", "1"),
	)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
