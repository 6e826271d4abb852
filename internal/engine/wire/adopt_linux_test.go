package wire_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/testnet"
)

// linkLocal is the address of that kind that an interface has, once nobody else is found to have it.
func linkLocal(t *testing.T, ns *testnet.Namespace, link string) string {
	t.Helper()
	var found string
	eventually(t, link+" has a link-local address", func() bool {
		err := ns.Do(func() error {
			i, err := net.InterfaceByName(link)
			if err != nil {
				return err
			}
			addrs, err := i.Addrs()
			for _, a := range addrs {
				if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
					found = p.Addr().String() + "%" + link
				}
			}
			if err != nil || found == "" {
				return err
			}
			ln, err := net.Listen("tcp", net.JoinHostPort(found, "0"))
			if err == nil {
				err = ln.Close()
			}
			return err
		})
		return err == nil && found != ""
	})
	return found
}

// Flows between link-local addresses are adopted with the interfaces that these belong to, which no
// packet says: they go on, and get their sockets back.
func TestAdoptLinkLocal(t *testing.T) {
	c := newChain(t)
	root := testnet.BPFFS(t)
	config := wire.Config{Instance: "test", Root: root}
	b := &bench{}
	b.client, b.a = connectBy(t, c.A, c.B, linkLocal(t, c.B, testnet.LinkBA), testnet.LinkAB)
	b.b, b.server = connectBy(t, c.B, c.C, linkLocal(t, c.C, testnet.LinkCB), testnet.LinkBC)
	p := openPlane(t, c, config)
	handOver(t, consider(t, c, p, b, func() {}))
	both(t, b)
	p.Close()

	p = openPlane(t, c, config)
	left, err := p.Adopt(func(*wire.Pair) func() { return func() {} }, false, nil)
	if err != nil || len(left) != 1 {
		t.Fatalf("adopted %d, %v", len(left), err)
	}
	pair := left[0].Pair
	before := atRest(t, pair)
	both(t, b)
	is := atRest(t, pair)
	for i := range is.Flows {
		if was := before.Flows[i].Rewrite.Ifindex; is.Flows[i].Rewrite.Ifindex != was {
			t.Errorf("packets leave by %d, and left by %d", is.Flows[i].Rewrite.Ifindex, was)
		}
	}
	takeBack(t, pair, b)
}
