package wire_test

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"github.com/spliced-io/spliced/internal/engine/wire"
	"github.com/spliced-io/spliced/internal/sys"
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

// An interface of B itself that takes smaller packets than before: B says so to the sender, as a
// router would, and lets nothing out that is too big.
func TestOwnLinkShrinks(t *testing.T) {
	bundled := func(*testing.T, *testnet.Chain) {}
	for _, tc := range []struct {
		name    string
		place   place
		near    bool // the client has a link-local address
		prepare func(*testing.T, *testnet.Chain)
	}{
		{"v4", places()[0], false, bundled},
		{"v6", places()[1], false, bundled},
		{"unaided", places()[0], false, unaided},
		{"unaided-v6", places()[1], false, unaided},
		{"link-local", places()[1], true, bundled},
		{"unaided-link-local", places()[1], true, unaided},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const mtu = 1300
			c := newChain(t)
			tc.prepare(t, c)
			b := &bench{}
			if tc.near {
				b.client, b.a = connectBy(t, c.A, c.B, linkLocal(t, c.B, testnet.LinkBA), testnet.LinkAB)
				b.b, b.server = connect(t, c.B, c.C, tc.place.back)
			} else {
				b = tc.place.open(t, c)
			}
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			handOver(t, pair)
			carry(t, b.client, b.server, 1<<20)
			// Of both ends of the link: C's own kernel knows.
			if err := errors.Join(c.B.SetMTU(testnet.LinkBC, mtu), c.C.SetMTU(testnet.LinkCB, mtu)); err != nil {
				t.Fatal(err)
			}
			v, err := pair.Look()
			if err != nil || v.Flows[0].TooBig > 0 {
				t.Fatalf("%+v, %v", v, err)
			}
			carry(t, b.client, b.server, 4<<20)
			if v, err = pair.Look(); err != nil || v.Flows[0].TooBig == 0 {
				t.Errorf("%+v, %v: nothing was too big", v, err)
			}
			was := v.Flows[0].TooBig
			// It knows it now.
			carry(t, b.client, b.server, 1<<20)
			carry(t, b.server, b.client, 1<<20)
			if v, err = pair.Look(); err != nil || v.Flows[0].TooBig > was || v.Flows[1].TooBig > 0 {
				t.Errorf("%+v, %v: before %d were too big", v, err, was)
			}
			if info, err := sys.ReadTCPInfo(fd(t, b.client)); err != nil || info.PathMTU != mtu {
				t.Errorf("the client takes the path for one of %d bytes, want %d; %v", info.PathMTU, mtu, err)
			}
			pair.Abort()
		})
	}
}

// ethtool sets a feature of an interface, by its command in linux/ethtool.h.
func ethtool(link string, command, value uint32) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(fd) }()
	const siocethtool = 0x8946
	v := [2]uint32{command, value}
	var req struct {
		name [16]byte
		data *[2]uint32
		_    [16]byte
	}
	copy(req.name[:], link)
	req.data = &v
	_, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), siocethtool, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(&v)
	if e != 0 {
		return fmt.Errorf("ethtool %#x of %s: %w", command, link, e)
	}
	return nil
}

// unaided has no interface of a chain help with checksums and segments.
func unaided(t *testing.T, c *testnet.Chain) {
	t.Helper()
	// Segmentation first: it needs checksums.
	commands := []uint32{0x1f, 0x24, 0x2c, 0x17, 0x15} // STSO, SGSO, SGRO, STXCSUM, SRXCSUM
	for ns, links := range map[*testnet.Namespace][]string{
		c.A: {testnet.LinkAB}, c.B: {testnet.LinkBA, testnet.LinkBC}, c.C: {testnet.LinkCB},
	} {
		err := ns.Do(func() error {
			for _, link := range links {
				for _, command := range commands {
					if err := ethtool(link, command, 0); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Links of other kinds than the rest of the tests have.
func TestLinks(t *testing.T) {
	const front, front6 = "10.87.1.2", "fd87:1::2"
	vlan := func(t *testing.T, c *testnet.Chain) {
		t.Helper()
		err := errors.Join(
			c.A.AddVLAN(testnet.LinkAB, "v7", 7), c.B.AddVLAN(testnet.LinkBA, "v7", 7),
			c.A.AddAddr("v7", "10.87.1.1/24"), c.B.AddAddr("v7", front+"/24"),
			c.A.AddAddr("v7", "fd87:1::1/64"), c.B.AddAddr("v7", front6+"/64"),
		)
		if errors.Is(err, syscall.EOPNOTSUPP) {
			t.Skip("this kernel has no VLANs: ", err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	bridge := func(t *testing.T, c *testnet.Chain) {
		t.Helper()
		err := errors.Join(
			c.B.AddBridge(testnet.LinkBA, "br"), c.A.AddAddr(testnet.LinkAB, "10.87.1.1/24"), c.B.AddAddr("br", front+"/24"),
			c.A.AddAddr(testnet.LinkAB, "fd87:1::1/64"), c.B.AddAddr("br", front6+"/64"),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name        string
		prepare     func(*testing.T, *testnet.Chain)
		front, back string
	}{
		{"vlan", vlan, front, testnet.AddrC},
		{"vlan-v6", vlan, front6, testnet.Addr6C},
		{"bridge", bridge, front, testnet.AddrC},
		{"bridge-v6", bridge, front6, testnet.Addr6C},
		{"unaided", unaided, testnet.AddrBA, testnet.AddrC},
		{"unaided-v6", unaided, testnet.Addr6BA, testnet.Addr6C},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newChain(t)
			tc.prepare(t, c)
			b := place{client: onA, server: onC, front: tc.front, back: tc.back}.open(t, c)
			p := openPlane(t, c, wire.Config{}) // last: without a pair it soon ends
			pair := consider(t, c, p, b, func() {})
			handOver(t, pair)
			carry(t, b.client, b.server, 4<<20)
			carry(t, b.server, b.client, 4<<20)
			v, err := pair.Look()
			if err != nil || v.Flows[0].Packets == 0 || v.Flows[1].Packets == 0 {
				t.Error(v, err)
			}
			pair.Abort()
		})
	}
}
