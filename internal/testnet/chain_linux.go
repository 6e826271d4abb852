package testnet

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
)

// Addresses of a [Chain]. Every address of the two pools belongs to A or to C
// too (local routes on lo), and is routed to it: tests that open many
// connections spread over them.
const (
	AddrA  = "10.83.1.1"
	AddrBA = "10.83.1.2" // B's on the link to A
	AddrBC = "10.83.2.2" // B's on the link to C
	AddrC  = "10.83.2.1"
	PoolA  = "10.84.0.0/16"
	PoolC  = "10.85.0.0/16"

	Addr6A  = "fd83:1::1"
	Addr6BA = "fd83:1::2"
	Addr6BC = "fd83:2::2"
	Addr6C  = "fd83:2::1"
)

// Interfaces of a [Chain].
const (
	LinkAB = "tob" // A's
	LinkBA = "toa" // B's
	LinkBC = "toc" // B's
	LinkCB = "tob" // C's
)

// A Chain is three namespaces in a row: A — B — C, with a veth pair between
// neighbours. B forwards IP.
type Chain struct{ A, B, C *Namespace }

// NewChain makes a chain. IPv6 addresses are there if the kernel has IPv6.
func NewChain() (_ *Chain, err error) {
	c := &Chain{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	for _, part := range []struct {
		label string
		ns    **Namespace
	}{{"a", &c.A}, {"b", &c.B}, {"c", &c.C}} {
		if *part.ns, err = New(part.label); err != nil {
			return nil, err
		}
	}
	if err = c.sysctls(); err != nil {
		return nil, err
	}
	if err = Veth(c.A, LinkAB, c.B, LinkBA); err != nil {
		return nil, err
	}
	if err = Veth(c.B, LinkBC, c.C, LinkCB); err != nil {
		return nil, err
	}
	return c, c.address()
}

// Close removes the three namespaces.
func (c *Chain) Close() error {
	var errs []error
	for _, ns := range []*Namespace{c.A, c.B, c.C} {
		if ns != nil {
			errs = append(errs, ns.Close())
		}
	}
	return errors.Join(errs...)
}

// Veth makes a pair of interfaces, one in each namespace, and sets both up.
func Veth(a *Namespace, nameInA string, b *Namespace, nameInB string) error {
	err := a.netlink(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = nameInA
		return h.LinkAdd(&netlink.Veth{
			LinkAttrs:     attrs,
			PeerName:      nameInB,
			PeerNamespace: netlink.NsFd(b.Fd()),
		})
	})
	if err != nil {
		return fmt.Errorf("make veth pair %s–%s: %w", a.name, b.name, err)
	}
	return errors.Join(a.up(nameInA), b.up(nameInB))
}

// AddVLAN makes an interface for the packets of a VLAN on another one, and sets it up.
func (ns *Namespace) AddVLAN(parent, name string, id int) error {
	return ns.addOver(parent, func(l netlink.Link) (netlink.Link, error) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex = name, l.Attrs().Index
		return &netlink.Vlan{LinkAttrs: attrs, VlanId: id}, nil
	})
}

// AddBridge makes a bridge with another interface as its only port, and sets it up.
func (ns *Namespace) AddBridge(port, name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	err := ns.addOver(port, func(netlink.Link) (netlink.Link, error) { return bridge, nil })
	if err != nil {
		return err
	}
	return ns.netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(port)
		if err == nil {
			err = h.LinkSetMaster(l, bridge)
		}
		if err != nil {
			return fmt.Errorf("make %s a port of %s in %s: %w", port, name, ns.name, err)
		}
		return nil
	})
}

func (ns *Namespace) addOver(lower string, build func(netlink.Link) (netlink.Link, error)) error {
	return ns.netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(lower)
		if err != nil {
			return fmt.Errorf("find %s in %s: %w", lower, ns.name, err)
		}
		upper, err := build(l)
		if err == nil {
			err = h.LinkAdd(upper)
		}
		if err == nil {
			err = h.LinkSetUp(upper)
		}
		if err != nil {
			return fmt.Errorf("add an interface over %s in %s: %w", lower, ns.name, err)
		}
		return nil
	})
}

// AddAddr gives an interface an address: AddAddr("tob", "10.83.1.1/24").
func (ns *Namespace) AddAddr(link, cidr string) error {
	return ns.netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(link)
		if err != nil {
			return fmt.Errorf("find %s in %s: %w", link, ns.name, err)
		}
		addr, err := netlink.ParseAddr(cidr)
		if err == nil {
			// An IPv6 address would otherwise be tentative, and unusable, for a moment.
			const noDuplicateDetection = 0x02 // IFA_F_NODAD
			addr.Flags = noDuplicateDetection
			err = h.AddrAdd(l, addr)
		}
		if err != nil {
			return fmt.Errorf("add %s to %s in %s: %w", cidr, link, ns.name, err)
		}
		return nil
	})
}

// SetMTU sets the size of the largest packet that an interface sends.
func (ns *Namespace) SetMTU(link string, mtu int) error {
	return ns.set(link, fmt.Sprintf("to an MTU of %d", mtu), func(h *netlink.Handle, l netlink.Link) error {
		return h.LinkSetMTU(l, mtu)
	})
}

// SetBundles sets how large the bundles of segments are that an interface sends and receives, in bytes (GSO, GRO): more
// than 64 KiB is "BIG TCP".
func (ns *Namespace) SetBundles(link string, size int) error {
	return ns.set(link, fmt.Sprintf("to bundles of %d bytes", size), func(h *netlink.Handle, l netlink.Link) error {
		return errors.Join(h.LinkSetGSOMaxSize(l, size), h.LinkSetGROMaxSize(l, size),
			h.LinkSetGSOIPv4MaxSize(l, size), h.LinkSetGROIPv4MaxSize(l, size))
	})
}

// Down sets an interface down: to its peer it is as if the cable had been pulled out.
func (ns *Namespace) Down(link string) error {
	return ns.set(link, "down", (*netlink.Handle).LinkSetDown)
}

// AddRoute routes a network through a gateway.
func (ns *Namespace) AddRoute(cidr, gateway string) error {
	return ns.addRoute(cidr, func(*netlink.Handle) (netlink.Route, error) {
		return netlink.Route{Gw: net.ParseIP(gateway)}, nil
	})
}

// AddLocal makes every address of a network the namespace's own.
func (ns *Namespace) AddLocal(cidr string) error {
	return ns.addRoute(cidr, func(h *netlink.Handle) (netlink.Route, error) {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return netlink.Route{}, err
		}
		const localTable, localType = 255, 2 // RT_TABLE_LOCAL, RTN_LOCAL
		return netlink.Route{
			LinkIndex: lo.Attrs().Index, Table: localTable, Type: localType, Scope: netlink.SCOPE_HOST,
		}, nil
	})
}

func (ns *Namespace) addRoute(cidr string, build func(*netlink.Handle) (netlink.Route, error)) error {
	_, dst, err := net.ParseCIDR(cidr)
	if err != nil {
		return fmt.Errorf("add route in %s: %w", ns.name, err)
	}
	return ns.netlink(func(h *netlink.Handle) error {
		route, err := build(h)
		if err == nil {
			route.Dst = dst
			err = h.RouteAdd(&route)
		}
		if err != nil {
			return fmt.Errorf("add route to %s in %s: %w", cidr, ns.name, err)
		}
		return nil
	})
}

func (c *Chain) sysctls() error {
	errs := []error{c.B.Sysctl("net.ipv4.ip_forward", "1")}
	for _, ns := range []*Namespace{c.A, c.B, c.C} {
		errs = append(errs, ns.Sysctl("net.ipv4.conf.all.rp_filter", "0"))
	}
	if haveIPv6() {
		errs = append(errs, c.B.Sysctl("net.ipv6.conf.all.forwarding", "1"))
		for _, ns := range []*Namespace{c.A, c.B, c.C} {
			// Link-local addresses are usable at once, too.
			errs = append(errs, ns.Sysctl("net.ipv6.conf.default.accept_dad", "0"))
		}
	}
	return errors.Join(errs...)
}

func (c *Chain) address() error {
	errs := []error{
		c.A.AddAddr(LinkAB, AddrA+"/24"),
		c.B.AddAddr(LinkBA, AddrBA+"/24"),
		c.B.AddAddr(LinkBC, AddrBC+"/24"),
		c.C.AddAddr(LinkCB, AddrC+"/24"),
		c.A.AddRoute("0.0.0.0/0", AddrBA),
		c.C.AddRoute("0.0.0.0/0", AddrBC),
		c.A.AddLocal(PoolA),
		c.C.AddLocal(PoolC),
		c.B.AddRoute(PoolA, AddrA),
		c.B.AddRoute(PoolC, AddrC),
	}
	if haveIPv6() {
		errs = append(errs,
			c.A.AddAddr(LinkAB, Addr6A+"/64"),
			c.B.AddAddr(LinkBA, Addr6BA+"/64"),
			c.B.AddAddr(LinkBC, Addr6BC+"/64"),
			c.C.AddAddr(LinkCB, Addr6C+"/64"),
			c.A.AddRoute("::/0", Addr6BA),
			c.C.AddRoute("::/0", Addr6BC),
		)
	}
	return errors.Join(errs...)
}

func haveIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}
